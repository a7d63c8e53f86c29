"""The reference trainer: GRPO and SFT on TRL, with the verifiers of the benchmarks as rewards.

Where to find what, from the paper (arXiv:2504.11468) to the file:

    the mixed reward           rewards, boxes; data (which record has which); task (records as a task of the harness)
    its reward model           reward_models, reward_servers, similarity (embedded); calibration (is it any good)
    GRPO                       grpo (loss, checks, log), kl (the adaptive controller), grpo_run (a whole run)
    a prompt computed once     shared_prompt
    SFT                        sft, sft_data, sft_watch (loss spikes)
    recipes                    recipe, sft_recipe, recipe_files; trl_settings (as TRL takes them)
    before a GPU is booked     plan, plan_report, sizes (memory)
    a run's beginning and end  lifecycle, base_model, run_folder, processes (of a launch)
    going on after a stop      checkpoints, grpo_checkpoints
    rollouts                   rollouts (written and logged), measures (lengths, repetition, moments)
    vLLM's rollouts            vllm_settings, vllm_checks, vllm_rollouts
    eyes on a run              watch (benchmarks), divergence (the alarm), training_page (the report), trackers
    the built-in tiny model    reference, tokenizer, warmup, baseline (made to think)
    the whole loop             demo, demo_report
    data of one's own          split, split_report
    the command line           commands
"""
