"""From any audio to shards (ingest), what a shard is (shards), and from shards to training blocks (plan, stream)."""
