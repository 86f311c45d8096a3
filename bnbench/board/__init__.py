"""TensorBoard on an experiment. Nothing here needs torch: all is made from what the store has.

`views`: the files of a run, rewritten from its folder. `bands`: means over seeds. `rebuild`: all of
them. `serve`: TensorBoard itself, and the link that opens a curated view. Import the module that is
needed: some take a while, and a run needs only `views`.
"""
