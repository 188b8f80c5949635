"""Networks of the blind-spot denoiser: the contract, and one file for each."""
