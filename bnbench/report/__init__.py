"""Stored runs in, tables and figures out.

`comparison`: the table that closes a sweep. `run_table`: the one that closes a run. `status`: what
there is on disk. `curves`: learning curves as a figure. `probes`: what probes have read, as
figures. Import the module that is needed: some take a while.
"""
