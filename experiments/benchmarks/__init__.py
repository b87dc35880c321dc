"""Benchmarks: each comparison in one process, interleaved, as a ratio with its spread (`make
bench`).
"""
