"""The eleven tasks of the LAPE benchmark, each read from its data set as the publisher distributes it.

A task lists its clips (``disk.Entry``: file, part of it, label, split, group) and states its facts (``task.LapeTask``);
the ingest decodes, rejects, resumes and writes as for any other source.

To add a task:

1. write a module here, such as ``urbansound``: the publisher's layout, ``clips(disk)``, and ``TASK`` with the facts;
2. add it to ``registry.TASKS`` and its code to ``config.LapeTaskCode``, which ``--help`` shows;
3. add a miniature of the data set to ``tests/support/lape_sets.py``, which the tests of all tasks read.
"""
