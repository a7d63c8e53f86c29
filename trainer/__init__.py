"""The reference trainer: GRPO and SFT on TRL with the verifiers of the benchmarks as rewards."""
