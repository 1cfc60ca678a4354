"""From any audio to shards (ingest), what a shard is (shards), and from shards to training blocks (plan, stream).

Any job that writes in parts shares the ledger, the parallel tasks and the rejects.
"""
