"""Numbers in, statistics with their uncertainty out; no files, no torch.

`differences`: the mean of replicates with its interval, and what can be said of paired differences:
intervals, the sign-flip test, Holm's correction, how many seeds would do. `verdict`: what they mean
for a claim. Nothing here imports `scipy.stats`: it takes a second.
"""
