"""TensorBoard on an experiment: what its runs show beside their events, and the way to it.

`description`: what the runs of an experiment have in common and differ in. `views`: a run's files,
anew from its folder. `bands`: means over seeds. `link`: the address that opens a curated view.
`serve`: TensorBoard itself. Nothing here needs torch: all of it is made from what the store has.
Import the module that is needed: some take a while, and a run needs only `views`.
"""
