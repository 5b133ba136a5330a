"""Rows of like length brought together, so that short ones are not padded to long ones: how long rows are, and in which batches they go.

Source: windows that are sorted and then shuffled batch by batch, as in tensor2tensor's and fairseq's batching by length; batches of so many
padded tokens, as fairseq's `--max-tokens`. Here both are pure functions of the seed, the epoch and the lengths.
"""
