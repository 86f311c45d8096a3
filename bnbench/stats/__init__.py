"""Numbers in, statistics with their uncertainty out; no files, no torch.

`differences`: the mean of replicates with its interval, and what can be said of paired differences:
intervals, the sign-flip test, Holm's correction, how many seeds would do. `effect`: what they
amount to for one claim. `verdict`: what that means, among the claims of a file. Nothing here
imports `scipy.stats`: it takes a second.
"""
