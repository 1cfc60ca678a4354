"""Jobs that write their output part by part: an ingest writes shards, an embedding writes vectors.

Such a job lists its source, plans its parts, and gives the plan to ``driver.write_parts``. The driver keeps other
processes out of the output (``unfused_ray.lease``), runs a bounded number of tasks by an ``executor`` (in this process,
or on Ray), and records each finished part in the ``ledger``, from which the same command resumes after an interruption.
Clips that cannot be used are ``rejects``, each with its reason. The job's manifest, written last, signs the output.
"""
