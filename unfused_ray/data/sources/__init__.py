"""Audio in the forms in which people keep it: found, listed as clips, and fetched.

``find`` decides the kind of a source by its files (``sniff``), ``listing`` lists its clips, and ``fetch`` opens their
bytes. A listing (``items``) has one row per clip and reads no audio: the row says where the clip lies, as a file, as a
byte range of a file, or as a row of a Parquet row group. ``pieces`` decodes a fetched clip.

``columns``, ``labels`` and ``splits`` recognise the names of labels and splits; ``locate`` finds the files that a list
names. Each thing that they take or leave becomes one of the ``notes`` for the summary.

To read another kind of archive:

1. write a module beside ``tar`` whose ``list_…(uri, split, columns, folder)`` returns a ``Listing`` of one archive;
2. add the function to ``listing.ARCHIVES`` and its suffix to ``find.KINDS``;
3. if its clips are neither files nor plain byte ranges, add a column to ``items.ITEMS`` that says where they are, and a
   branch to ``fetch.fetch``.

Damaged archives and clips become rejects; an object store that does not answer raises ``OSError``. The fuzz tests
(``tests/support/fuzz_readers.py``) cover every reader. A data set with splits of its own is a task of ``lape``.
"""
