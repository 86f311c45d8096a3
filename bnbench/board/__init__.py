"""TensorBoard on an experiment. Nothing here needs torch: all is made from what the store has.

`views`: the files of runs, rewritten from their folders. `bands`: means over seeds. `serve`:
TensorBoard itself, and the link that opens a curated view. Import the module that is needed: some
take a while, and a run needs only `views`.
"""
