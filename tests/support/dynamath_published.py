"""What published models reach on DynaMath."""

DYNAMATH = {
    "claude3.5": ("64.83", "35.73", "55.11", "88.62"),
    "GPT4o": ("63.33", "34.73", "54.84", "90.22"),
    "Qwen2-72B": ("55.11", "28.54", "51.79", "84.63"),
    "Qwen2-7B": ("42.14", "13.77", "32.69", "76.25"),
    "InternVL2-8b": ("39.34", "10.38", "26.38", "72.65"),
    "deepseek7B": ("21.62", "4.19", "19.39", "52.30"),
    "llava1.5-7B": ("16.39", "1.80", "10.96", "41.72"),
}
"""Average, worst, RR and best in percent, recomputed elsewhere from the authors' result files."""
