"""Benchmarks: figures of the real pipeline on real servers, never asserted on."""
