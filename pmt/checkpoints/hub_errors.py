"""What goes wrong between here and the Hub, as sentences that say how to go on."""

import errno
from pathlib import Path

from pmt.errors import RequestError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BUSY = frozenset({408, 429})


def recognized() -> tuple[type[Exception], ...]:
    """What the library raises for what can go wrong outside of it.

    Its HTTP errors are whichever its HTTP client has; what it cannot parse is a ValueError, a
    KeyError or a TypeError, and its transfer library raises RuntimeErrors.
    """
    from huggingface_hub import errors

    return (errors.HTTPError, OSError, ValueError, KeyError, TypeError, RuntimeError)


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub gave no answer, or only that it cannot give one now."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in _BUSY
    # A refusal of the system (no right to open a connection) is a ConnectionError.
    return isinstance(error, errors.HTTPError | ConnectionError | TimeoutError)


def explain(error: Exception, name: str, revision: str | None, cache: Path) -> RequestError:
    """The sentence for an error that came up while a model was asked for or fetched."""
    if isinstance(error, RequestError):
        return error
    return RequestError(_sentence(error, name, revision, cache))


def _sentence(error: Exception, name: str, revision: str | None, cache: Path) -> str:
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    give_token = "give a token (token=..., HF_TOKEN, or 'hf auth login')"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"the model {name} is gated: accept its terms at {hub}/{name}, then {give_token} of "
            "the account that did"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no directory {name!r}, and the Hub at {hub} has no model of that name that "
            f"it shows; check the name, or {give_token} if it is private"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"the model {name} has no revision {revision!r}; give a branch, a tag or a commit "
            f"listed at {hub}/{name}/tree/main, or leave it out for the main branch"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        # The library asked, got no answer, and looked into the cache in vain.
        cause = error.__cause__
        why = reason(cause) if cause is not None else "no answer"
        return f"fetching {name} from {hub} failed ({why}); check the connection and try again"
    if isinstance(error, errors.EntryNotFoundError):
        return f"a file of {name} disappeared from {hub} while it was fetched; try again"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"token=True asks for a token that was saved, and there is none; {give_token}"
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error.response.status_code, name, hub, give_token)
    if isinstance(error, errors.HTTPError | ConnectionError | TimeoutError):
        return f"fetching {name} from {hub} failed ({reason(error)}); check the connection"
    if isinstance(error, OSError) and error.errno in _FULL:
        return (
            f"the disk of the cache {cache} is full; free some space, or give a cache_dir on "
            "another disk"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"cannot write to the cache {cache} ({error.strerror}); give a cache_dir, or set "
            "HF_HUB_CACHE, to a directory that can be written to"
        )
    if isinstance(error, OSError | RuntimeError):
        return f"fetching {name} from {hub} failed ({reason(error)}); try again"
    return (
        f"{hub} did not answer as the Hugging Face Hub does ({reason(error)}); check HF_ENDPOINT "
        "and the proxy"
    )


def _refusal(status: int, name: str, hub: str, give_token: str) -> str:
    if status in (401, 403):
        return (
            f"the Hub at {hub} refuses access to {name} (status {status}); {give_token} that may "
            "read it"
        )
    if status == 404:
        return f"the Hub at {hub} does not know {name} (status 404); check the name and HF_ENDPOINT"
    if status == 429:
        return f"the Hub at {hub} takes no more requests for now (status 429); try again later"
    if status >= 500:
        return f"the Hub at {hub} fails (status {status}); try again later"
    return f"the Hub at {hub} refused to give {name} (status {status}); check the name and revision"


def reason(error: BaseException) -> str:
    """The Hub's status, or the first line of an error's message, or its kind."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
