"""The published keyword rules, each counted by hand as its authors' code counts."""

import pytest

from ahabench.harness.aha.lexicon import published_rules

RULES = {rule.name: rule for rule in published_rules()}


@pytest.mark.parametrize(
    ("rule", "text", "hits"),
    [
        # Substrings of the lower-cased text: "against" holds "again", "waiter" holds "wait".
        ("vlaa_data_split", "The Waiter leans against the wall.", 2),
        # "double-check" and the "check" in it.
        ("vlaa_data_split", "I double-check.", 2),
        ("vlaa_data_split", "I should confirm this. Hmm. A mistake.", 3),
        ("vlaa_data_split", "The sum is 3.", 0),
        ("vlaa_training_plot", "I should check. Again, hmm, a mistake.", 1),
        ("vlaa_training_plot", "Wait! Alternatively, double-check.", 3),
        # "reevaluation" does not hold "reevaluate".
        ("oat_zero", "My Reevaluation; I try again and think again.", 3),
        ("oat_zero", "I double-check and reconsider.", 0),
        ("dr_grpo", "I double-check and reconsider; reanalyze; wait, try again.", 3),
        ("simplerl_zoo", "However, wait, retry, Alternatively.", 4),
        ("simplerl_zoo", "Check again.", 0),
        # Regular expressions on the text as it is: capitals are missed, and so is "wait" without its comma.
        ("open_reasoner_zero", "Wait, wait. So wait, however, retrying; recheck it, recheck.", 4),
    ],
)
def test_a_rule_counts_as_its_authors_do(rule: str, text: str, hits: int):
    assert RULES[rule].count(text) == hits


def test_the_rules_are_those_of_the_literature():
    assert list(RULES) == [
        "vlaa_data_split",
        "vlaa_training_plot",
        "oat_zero",
        "dr_grpo",
        "simplerl_zoo",
        "open_reasoner_zero",
    ]
    # Sizes of the lists in the papers and files that the rules name.
    assert [len(rule.words) for rule in RULES.values()] == [8, 4, 11, 15, 7, 5]
