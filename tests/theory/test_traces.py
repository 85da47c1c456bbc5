"""A clause's conclusion and its instances are compiled once, however many batches there are."""

from tests.traces import counted
from theory import registry
from theory.verify import Runner


def test_statements_compile_once_for_all_batches_of_instances():
    (clause, *_) = registry.statements()["section-2.1.1"].corrected.clauses
    runner = Runner(4)
    runner.clause(clause, 4, 0)
    with counted() as found:
        runner.clause(clause, 12, 1)
    assert found == []
