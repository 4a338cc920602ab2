# SPDX-License-Identifier: Apache-2.0
"""Ask the fleet server what time it is: for boards that wake up in 1970, and for clocks that jumped.

The rule. An answer counts when (1) the server proves itself by the pinned CA for the name that we called, everything
but dates checked as ever; (2) it lies within the life of the certificate that was shown, so that a stolen server key
cannot move our time beyond its own end; (3) it is not more than a day before the floor; (4) no time service vouches
for the system's clock, or that clock is before the floor. It is the ``Date`` of the HTTP answer (RFC 9110, section
6.6.1), good to a few seconds, which is enough for expiries of days. It holds for this boot of the kernel alone.
"""

import datetime as dt
import email.utils
import http.client
from pathlib import Path

from edge_agent.adapters import time_floor, tls
from edge_contract.errors import DownloadError, StropError

__all__ = ["ask", "now", "second_opinion"]


def now(data: Path, urls: list[str], system: float) -> float:
    """Return the trusted time, after asking the server where the system's clock is not set.

    Args:
        data: The device's data folder.
        urls: Addresses of the server by which it may be asked, in this order.
        system: The system's clock, seconds since 1970.

    Raises:
        DownloadError: The clock is not set and no server told the time.
    """
    try:
        return time_floor.trusted_now(data / "tuf", system)
    except DownloadError as unset:
        try:
            return ask(data, urls, system)
        except StropError as error:
            raise unset from error


def ask(data: Path, urls: list[str], system: float) -> float:
    """Ask the server for the time, keep its answer as the hint of this boot, and return the time in force.

    Raises:
        DownloadError: A time service vouches for the system's clock, no server answered, or its answer breaks the rule.
    """
    folder = data / "tuf"
    least = time_floor.floor(folder)
    if system >= least - time_floor.SLACK_S and time_floor.is_synchronised():
        raise DownloadError("the system's clock is kept by a time service: it is believed", where="time hint")
    last: StropError = DownloadError("no address of the server is known", where="time hint")
    for url in filter(None, urls):
        try:
            told = _told(url, data / "identity")
            _check(told, least, url)
        except StropError as error:
            last = error
            continue
        time_floor.keep_hint(folder, told[0])
        return time_floor.trusted_now(folder, system)
    raise last


def second_opinion(data: Path, urls: list[str], system: float, judged_by: float, error: StropError) -> float:
    """Return another time by which to judge what has expired or has not begun; raises the error if there is none.

    Args:
        data, urls, system: As ``now``.
        judged_by: The time that found the error.
        error: What it found.
    """
    try:
        other = ask(data, urls, system)
    except StropError:
        raise error from error.__cause__  # the clock is right as far as we can know
    if abs(other - judged_by) <= time_floor.SLACK_S:
        raise error from error.__cause__
    return other


def _told(url: str, identity: Path) -> tuple[float, float, float]:
    """Return the server's time, and begin and end of its certificate."""
    connection = tls.connect(url, tls.dateless(tls.device_context(identity)))
    try:
        connection.request("GET", "/ca.pem")  # what is there does not matter, the head of the answer does
        life = tls.certificate_life(connection.sock)
        date = email.utils.parsedate_to_datetime(connection.getresponse().getheader("Date", ""))
    except (OSError, http.client.HTTPException) as error:
        raise tls.explain(error, url) from error
    except (ValueError, TypeError) as error:
        raise DownloadError("the server told no time", where=url) from error
    finally:
        connection.close()
    return (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp(), *life


def _check(told: tuple[float, float, float], least: float, url: str) -> None:
    at, begins, ends = told
    if not begins <= at <= ends:
        fix = "set the server's clock, or restart it: it renews its certificate"
        raise DownloadError(f"the server says {_day(at)}, outside its certificate's life", where=url, fix=fix)
    if at < least - time_floor.SLACK_S:
        what = f"the server says {_day(at)}, metadata was signed on {_day(least)}"
        raise DownloadError(what, where=url, fix="set the server's clock")


def _day(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d")
