"""What a changed formula is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A changed formula.

    Attributes:
      name: for ``--only``.
      file: relative to the root of the repository.
      before, after: source text; ``before`` stands in the file exactly ``times`` times.
      caught_by: a statement's id, or a pytest node (it holds ``::``).
      times: how often ``before`` stands there; all of them are changed.
    """

    name: str
    file: str
    before: str
    after: str
    caught_by: str
    times: int = 1

    @property
    def by_test(self) -> bool:
        """Whether a test notices, and not a statement."""
        return "::" in self.caught_by

    def apply(self, text: str) -> str:
        """The file's text with the change.

        Raises:
          ValueError: if the formula does not stand there as often as it should.
        """
        found = text.count(self.before)
        if found != self.times:
            message = (
                f"{self.name}: {self.file} has {self.before!r} {found} times, not {self.times}; "
                "write the formula into tests/mutation as it is now"
            )
            raise ValueError(message)
        return text.replace(self.before, self.after)


def changes_in(
    file: str, *changes: tuple[str, str, str, str] | tuple[str, str, str, str, int]
) -> list:
    """Changes of one file: name, before, after, what notices, and how often it stands there."""
    return [Mutation(c[0], file, *c[1:]) for c in changes]
