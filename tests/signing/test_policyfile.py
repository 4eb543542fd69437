"""Policy files: each rule at its edge, and whatever is not understood signs nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.bitcoin import taproot
from musignet.bitcoin.group import CHANGE, RECEIVE
from musignet.bitcoin.review import Review, review
from musignet.bitcoin.transaction import TxOut
from musignet.chain import Chain
from musignet.errors import LocalError
from musignet.signing.policy import Ask, Day, No, Yes
from musignet.signing.policyfile import TEMPLATE, PolicyError, Rules
from support.wallet import EXTERNAL, group, psbt, replace_tx, spend

ADDRESS = taproot.address(EXTERNAL, Chain.REGTEST)
OWN = taproot.address(group().derive(RECEIVE, 9).script, Chain.REGTEST)
REVIEW = review(psbt(), group())  # 600,000 sat to EXTERNAL, change, a fee of 2,000 sat
SENT, FEE = 600_000, 2_000
RATE = -(-FEE // REVIEW.vbytes)
AUTO = 'mode = "auto"\nmax_amount_per_day_sat = 2_100_000_000_000_000\n'


def rules(text: str) -> Rules:
    return Rules.parse_untrusted(text.encode(), Chain.REGTEST)


def paying(*outputs: TxOut) -> Review:
    tx, spent = spend(group())
    return review(psbt(group(), replace_tx(tx, outputs=(*tx.outputs, *outputs)), spent), group())


# --- what is answered -------------------------------------------------------------------------------------------------


def test_the_three_modes() -> None:
    assert rules('mode = "ask"').judge(REVIEW, Day(0)) == Ask()
    assert rules(AUTO).judge(REVIEW, Day(0)) == Yes()
    assert isinstance(rules('mode = "never"').judge(REVIEW, Day(0)), No)
    assert isinstance(rules('mode = "never"\nbeyond = "ask"\nmax_amount_sat = 0').judge(REVIEW, Day(0)), No)


AT_THE_EDGE = {
    "max_amount_sat": (SENT, 0),
    "max_amount_per_day_sat": (SENT + FEE + 1000, 1000),
    "max_fee_sat": (FEE, 0),
    "max_fee_rate_sat_vb": (RATE, 0),
}


@pytest.mark.parametrize("key", AT_THE_EDGE)
def test_a_limit_holds_to_the_satoshi(key: str) -> None:
    most, day = AT_THE_EDGE[key]
    base = "" if key == "max_amount_per_day_sat" else "max_amount_per_day_sat = 2_100_000_000_000_000\n"
    for mode, beyond, kept, broken in (
        ("auto", "ask", Yes, Ask),
        ("auto", "refuse", Yes, No),
        ("ask", "ask", Ask, Ask),
        ("ask", "refuse", Ask, No),
    ):
        head = f'mode = "{mode}"\nbeyond = "{beyond}"\n{base}'
        assert isinstance(rules(f"{head}{key} = {most}").judge(REVIEW, Day(day)), kept)
        assert isinstance(rules(f"{head}{key} = {most - 1}").judge(REVIEW, Day(day)), broken)


def test_what_is_refused_is_said() -> None:
    answer = rules('mode = "ask"\nbeyond = "refuse"\nmax_amount_sat = 5').judge(REVIEW, Day(0))
    assert answer == No("the amount would be 600000 sat, more than 5 sat")


def test_a_day_counts_what_was_approved_before_it() -> None:
    policy = rules(f'mode = "auto"\nmax_amount_per_day_sat = {SENT + FEE}')
    assert policy.judge(REVIEW, Day(0)) == Yes()
    assert policy.judge(REVIEW, Day(1)) == Ask()


@pytest.mark.parametrize("limit", ["", "max_fee_per_day_sat = 50_000"])
def test_the_fees_of_a_day_are_bounded_where_nobody_is_asked(limit: str) -> None:
    """A cosigner could have the wallet pay itself again and again: the allowed address is ours, the fee is burned."""
    most = 50_000 if limit else limits.FEE_CAP_SAT
    listed = rules(f'mode = "auto"\nallowed_addresses = ["{ADDRESS}"]\n{limit}')
    assert listed.judge(REVIEW, Day(10**9, most - FEE)) == Yes()
    assert listed.judge(REVIEW, Day(10**9, most - FEE + 1)) == Ask()
    asked = rules(f'mode = "ask"\nbeyond = "refuse"\n{limit}')
    assert isinstance(asked.judge(REVIEW, Day(0, most)), No if limit else Ask)


def test_only_listed_addresses_are_paid() -> None:
    listed = rules(f'mode = "auto"\nallowed_addresses = ["{ADDRESS}"]')
    assert listed.judge(REVIEW, Day(0)) == Yes()
    assert rules(f'mode = "auto"\nallowed_addresses = ["{str(ADDRESS).upper()}"]').judge(REVIEW, Day(0)) == Yes()
    assert rules(f'mode = "auto"\nallowed_addresses = ["{OWN}"]').judge(REVIEW, Day(0)) == Ask()
    assert rules('mode = "auto"\nallowed_addresses = []').judge(REVIEW, Day(0)) == Ask()
    for other in (
        TxOut(1000, group().derive(RECEIVE, 9).script),  # an address of ours that is not change
        TxOut(1000, group().derive(CHANGE, 500).script),  # too far to be found again
        TxOut(0, b"\x6a\x04data"),  # no address at all
    ):
        assert listed.judge(paying(other), Day(0)) == Ask()


AMOUNTS = st.integers(0, 2_000_000)


@given(
    amount=st.none() | AMOUNTS,
    day=AMOUNTS,
    fee=st.none() | st.integers(0, 4_000),
    rate=st.none() | st.integers(0, 20),
    listed=st.none() | st.lists(st.sampled_from([ADDRESS, OWN]), max_size=2),
    spent=AMOUNTS,
    mode=st.sampled_from(["ask", "auto", "never"]),
    beyond=st.sampled_from(["ask", "refuse"]),
)
def test_never_yes_beyond_a_limit(
    amount: int | None, day: int, fee: int | None, rate: int | None, listed: list[str] | None, spent: int, mode: str,
    beyond: str,
) -> None:  # fmt: skip
    keys = {"max_amount_sat": amount, "max_fee_sat": fee, "max_fee_rate_sat_vb": rate, "allowed_addresses": listed}
    lines = [f"{key} = {value}".replace("'", '"') for key, value in keys.items() if value is not None]
    text = "\n".join([f'mode = "{mode}"', f'beyond = "{beyond}"', f"max_amount_per_day_sat = {day}", *lines])
    answer = rules(text).judge(REVIEW, Day(spent))
    keeps = (
        (amount is None or amount >= SENT)
        and spent + SENT + FEE <= day
        and (fee is None or FEE <= fee)
        and (rate is None or FEE / REVIEW.vbytes <= rate)
        and (listed is None or ADDRESS in listed)
    )
    assert isinstance(answer, Yes) == (mode == "auto" and keeps)
    assert isinstance(answer, No) == (mode == "never" or (beyond == "refuse" and not keeps))


# --- what is no policy ------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, str, str]] = [
    ("nothing", "", "mode"),
    ("no mode", "max_fee_sat = 1", "mode"),
    ("another mode", 'mode = "sometimes"', "mode"),
    ("a mode in capitals", 'mode = "AUTO"', "mode"),
    ("another beyond", 'mode = "ask"\nbeyond = "sign"', "beyond"),
    ("an unknown key", 'mode = "ask"\nmax_amount = 1', "max_amount"),
    ("a key misspelt", 'mode = "ask"\nmax_fee_sats = 1', "max_fee_sats"),
    ("a table", 'mode = "ask"\n[limits]\nmax_fee_sat = 1', "limits"),
    ("a number as text", 'mode = "ask"\nmax_fee_sat = "1"', "max_fee_sat"),
    ("a fraction", 'mode = "ask"\nmax_fee_sat = 1.5', "max_fee_sat"),
    ("infinity", 'mode = "ask"\nmax_fee_sat = inf', "max_fee_sat"),
    ("yes", 'mode = "ask"\nmax_fee_sat = true', "max_fee_sat"),
    ("less than nothing", 'mode = "ask"\nmax_fee_sat = -1', "max_fee_sat"),
    ("more than there is", 'mode = "ask"\nmax_amount_sat = 2_100_000_000_000_001', "max_amount_sat"),
    ("one address as text", f'mode = "ask"\nallowed_addresses = "{ADDRESS}"', "allowed_addresses"),
    ("an address with a fault", f'mode = "ask"\nallowed_addresses = ["{str(ADDRESS)[:-1]}q"]', "allowed_addresses"),
    (
        "an address of mainnet",
        'mode = "ask"\nallowed_addresses = ["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"]',
        "allowed_addresses: an address of another network",
    ),
    ("a key twice", 'mode = "ask"\nmode = "auto"', "overwrite"),
    ("no TOML", 'mode = "ask"\nmax_fee_sat 5', "line 2"),
    ("auto without a limit", 'mode = "auto"\nmax_fee_sat = 5\nmax_amount_sat = 5', "signs anything"),
]


@pytest.mark.parametrize(("text", "named"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_not_understood_is_no_policy(text: str, named: str) -> None:
    with pytest.raises(PolicyError) as caught:
        rules(text)
    assert named in str(caught.value)
    assert isinstance(caught.value, LocalError)


@pytest.mark.parametrize(
    "data", [b"\xff", b"\xef\xbb\xbfmode = 'ask'", b"a=" + b"[" * 60_000, b" " * (limits.POLICY_FILE_MAX_BYTES + 1)]
)
def test_other_bytes_are_no_policy(data: bytes) -> None:
    with pytest.raises(PolicyError, match="not a policy"):
        Rules.parse_untrusted(data, Chain.REGTEST)


@given(st.text(max_size=60) | st.sampled_from(TEMPLATE.splitlines()).flatmap(lambda line: st.just(line[1:] + "x")))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    try:
        said = rules(text).file.mode
    except PolicyError as error:
        said = str(error)
    assert said.isascii()


def test_the_template_explains_every_key_and_asks() -> None:
    assert rules(TEMPLATE).judge(REVIEW, Day(0)) == Ask()
    lines = [line.removeprefix("# ") for line in TEMPLATE.splitlines()]
    keys = {line.split(" = ")[0] for line in lines if " = " in line and line.split(" = ")[0].isidentifier()}
    assert keys == set(rules('mode = "ask"').file.__struct_fields__)
    every = "\n".join(line for line in lines if line.split(" = ")[0] in keys and "addresses" not in line)
    assert set(tomllib.loads(every)) == keys - {"allowed_addresses"}
    rules(every)


def test_the_page_shows_the_template() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "keys.md"
    assert f"```toml\n{TEMPLATE}```\n" in page.read_text("utf-8")
