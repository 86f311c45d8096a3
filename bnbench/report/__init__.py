"""Stored runs in, tables, figures and verdicts out.

`study`: an experiment as it lies on disk. `quantities`, `tuning`, `verdicts`: its numbers and
claims. `selection`: which cells are shown. `answer`: the sentences on top. `figures/`: pictures.
`record`: the whole report as data; `page`, `terminal`: the record as people read it; `writing`: its
files. `compare`: runs side by side. `comparison`, `closing`: the table that closes a sweep.
`run_table`: the one that closes a run. `run_rows`: a row a run. `status`: what there is on disk.
`pictures`: a run's probes as PNGs. `words`: numbers as text. Import the module that is needed: some
take a while.
"""
