"""The lobby: who is served next, and who has to go. `Lobby` and `Crowd` with guests that are only addresses."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from musignet.limits import Limits
from musignet.net.transport.lobby import CLEAN, FAILED, KNOWN, Crowd, Lobby

SLOTS = 8
LIMITS = Limits(lobby_slots=SLOTS)
_numbers = count()


@dataclass(eq=False)
class Caller:
    neighbourhood: str = ""
    rank: int = CLEAN
    since: float = 0.0
    prefix: str = field(default_factory=lambda: f"p{next(_numbers)}")

    def __post_init__(self) -> None:
        self.neighbourhood = self.neighbourhood or self.prefix


def lobby_of(*guests: Caller, spoken: bool = False) -> Lobby[Caller]:
    lobby: Lobby[Caller] = Lobby(LIMITS)
    for guest in guests:
        assert lobby.enter(guest) is None
        if spoken:
            lobby.spoke(guest)
    return lobby


def served(lobby: Lobby[Caller]) -> list[Caller]:
    found = []
    while (guest := lobby.next(known_only=False)) is not None:
        found.append(guest)
    return found


# --- who is served next -----------------------------------------------------------------------------------------------


def test_whoever_says_nothing_is_never_served() -> None:
    silent, talks = Caller(), Caller()
    lobby = lobby_of(silent, talks)
    lobby.spoke(talks)
    assert served(lobby) == [talks]
    assert len(lobby) == 1


def test_the_known_are_served_before_the_clean_and_those_before_who_has_failed() -> None:
    failed, clean, known = (Caller(rank=rank) for rank in (FAILED, CLEAN, KNOWN))
    assert served(lobby_of(failed, clean, known, spoken=True)) == [known, clean, failed]


def test_without_time_only_the_known_are_served() -> None:
    clean, known = Caller(), Caller(rank=KNOWN)
    lobby = lobby_of(clean, known, spoken=True)
    assert [lobby.next(known_only=True) for _ in range(2)] == [known, None]
    assert lobby.anybody_spoke


def test_one_neighbourhood_has_its_turn_after_the_other() -> None:
    crowd = [Caller("crowd") for _ in range(4)]
    alone = Caller("alone")
    assert served(lobby_of(*crowd, alone, spoken=True))[:2] == [crowd[0], alone]


# --- who has to go ----------------------------------------------------------------------------------------------------


def test_the_silent_push_each_other_out_and_nobody_who_speaks() -> None:
    honest = Caller()
    lobby = lobby_of(honest, spoken=True)
    silent = [Caller() for _ in range(100)]
    gone = [lobby.enter(one) for one in silent]
    assert [one for one in gone if one is not None] == silent[: 100 - SLOTS + 1]
    assert lobby.next(known_only=False) is honest


def test_a_crowd_that_speaks_does_not_push_out_who_has_just_come() -> None:
    lobby = lobby_of(*(Caller() for _ in range(SLOTS)), spoken=True)
    honest = Caller()
    assert lobby.enter(honest) is not None
    for _ in range(100):
        one = Caller()
        assert lobby.enter(one) is not honest
        lobby.spoke(one)


def test_the_oldest_of_the_fullest_neighbourhood_goes() -> None:
    first, crowd = Caller("first"), [Caller("crowd") for _ in range(2)]
    rest = [Caller() for _ in range(SLOTS - 3)]
    lobby = lobby_of(first, *crowd, *rest)
    assert lobby.enter(Caller()) is crowd[0]
    assert lobby.enter(Caller()) is first


def test_who_has_failed_goes_before_the_clean() -> None:
    clean = [Caller("one place") for _ in range(SLOTS - 1)]
    failed = Caller(rank=FAILED)
    lobby = lobby_of(*clean, failed, spoken=True)
    assert lobby.enter(Caller()) is failed


def test_the_known_go_last_silent_or_not() -> None:
    known = [Caller(rank=KNOWN) for _ in range(2)]
    lobby = lobby_of(*known)
    lobby.spoke(known[1])
    stranger = Caller()
    lobby.enter(stranger)
    assert [lobby.make_room() for _ in range(4)] == [stranger, known[0], known[1], None]


def test_a_silent_guest_has_the_time_of_act_one_and_the_known_no_more() -> None:
    first, second = Caller(since=1.0, rank=KNOWN), Caller(since=2.0)
    lobby = lobby_of(first, second)
    assert lobby.next_deadline() == 1.0 + LIMITS.act_one_timeout_s
    assert lobby.overdue(2.9) is None
    assert [lobby.overdue(3.5), lobby.overdue(3.5)] == [first, None]
    lobby.spoke(second)
    assert (lobby.next_deadline(), lobby.overdue(100.0)) == (None, None)


# --- always -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 99))))
def test_a_crowd_is_fair_and_keeps_the_order_of_each_place(steps: list[tuple[str, int]]) -> None:
    crowd: Crowd[int] = Crowd()
    numbers: dict[str, list[int]] = {"a": [], "b": []}
    for number, (place, _) in enumerate(steps):
        crowd.add(number, place)
        numbers[place].append(number)
    taken = [crowd.take() for _ in range(len(crowd))]
    for mine in numbers.values():
        assert [one for one in taken if one in mine] == mine
    both = 2 * min(map(len, numbers.values()))
    assert abs(sum(one in numbers["a"] for one in taken[:both]) * 2 - both) <= 1


@given(st.lists(st.tuples(st.sampled_from(["enter", "spoke", "next", "leave", "late"]), st.integers(0, 30))))
def test_the_lobby_never_holds_more_than_its_bound_and_loses_nobody(steps: list[tuple[str, int]]) -> None:
    lobby: Lobby[Caller] = Lobby(LIMITS)
    inside: list[Caller] = []
    for now, (what, number) in enumerate(steps):
        guest = inside[number % len(inside)] if inside else Caller()
        gone: Caller | None = None
        if what == "enter":
            one = Caller(f"n{number % 3}", number % 3, float(now), f"p{number % 5}")
            inside.append(one)
            gone = lobby.enter(one)
            assert gone is not one
        elif what == "spoke":
            lobby.spoke(guest)
        elif what == "next":
            gone = lobby.next(known_only=bool(number % 2))
        elif what == "late":
            gone = lobby.overdue(now)
        elif lobby.leave(guest):
            gone = guest
        if gone is not None:
            inside.remove(gone)
        assert len(lobby) == len(inside) <= SLOTS
        assert sum(lobby.of(f"p{n}") for n in range(5)) == len(inside)
        assert lobby.prefixes == len({one.prefix for one in inside})
    while lobby.make_room() is not None:
        inside.pop()
    assert (inside, lobby.prefixes, lobby.next_deadline()) == ([], 0, None)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99))))
def test_the_fullest_neighbourhood_is_found_after_any_coming_and_going(steps: list[tuple[int, int]]) -> None:
    crowd: Crowd[int] = Crowd()
    places: dict[str, list[int]] = {}
    for number, (place, leaver) in enumerate(steps):
        crowd.add(number, str(place))
        places.setdefault(str(place), []).append(number)
        if leaver < 50:
            where = sorted(places)[leaver % len(places)]
            assert crowd.remove(places[where].pop(0), where)
            places = {name: ones for name, ones in places.items() if ones}
        if places:
            oldest = {ones[0] for ones in places.values() if len(ones) == max(map(len, places.values()))}
            assert crowd.fullest() in oldest
        assert len(crowd) == sum(map(len, places.values()))
