"""Every bound of MuSigNet: its name with its unit, its value, and why it is that value.

Protocol bounds are constants: both sides must agree on them. What one node may choose for itself stands in
`Limits` and can be given to `NetworkService(limits=...)`. A buffer, queue, map or timeout whose bound is not
here is a defect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- one message -----------------------------------------------------------------------------------------------

MESSAGE_MAX_BYTES: Final = 4 * MIB
"""A whole envelope, signature included. 250 inputs in a PSBT with their previous transactions stay below 2 MiB."""

HEADER_MAX_BYTES: Final = 512
"""What an envelope may spend on everything but its payload: signature, keys, ids, counters and a label of 256 bytes."""

PAYLOAD_MAX_BYTES: Final = MESSAGE_MAX_BYTES - HEADER_MAX_BYTES
"""A payload of any type that has no smaller cap of its own (`PAYLOAD_CAPS_BYTES` in `wire.messages`)."""

CONTROL_PAYLOAD_MAX_BYTES: Final = 4 * KIB
"""Announcements, pings, errors and other control payloads: a label, a few addresses, a sentence."""

CHAT_MAX_BYTES: Final = 64 * KIB
"""One chat text. People type less; a paste of a descriptor or a base64 PSBT of a few inputs fits."""

BEACON_MAX_BYTES: Final = 512
"""One discovery datagram: below every path's minimum MTU, so it is never fragmented (THREATS.md U2)."""

LABEL_MAX_CHARS: Final = 64
"""A label: a name, not a place to hide a message. At most 256 bytes of UTF-8. Shown, never trusted."""

ADDRESSES_MAX: Final = 8
"""Addresses in one announcement: IPv4, IPv6, LAN and an onion, twice over."""

ADDRESS_MAX_CHARS: Final = 128
"""One address as text. An onion v3 name with scheme and port is 76."""

FEATURES_MAX: Final = 32
"""Feature numbers in one announcement."""

SESSION_ID_BYTES: Final = 32
BOOT_EPOCH_BYTES: Final = 8
"""Drawn afresh at each start: tells a restarted node from an equivocating one."""

MESSAGE_ID_BYTES: Final = 16
"""The truncated digest: 2^64 work for a chosen collision, and only the sender could profit from one."""

SEQUENCE_MAX: Final = 2**63 - 1
"""Fits SQLite's and every other language's signed 64 bits."""

SENT_AT_MAX_MS: Final = 2**53 - 1
"""Milliseconds since 1970 that survive a JSON number."""

# --- one transaction -------------------------------------------------------------------------------------------

PSBT_MAX_BYTES: Final = 512 * KIB
"""A whole PSBT (THREATS.md X17). 250 inputs of three signers with all their nonces and signatures take 280 KiB."""

PARSED_PSBTS_MAX: Final = 4
"""Parsed proposals that a process remembers, for its node, keyholder and blame: at most 1.2 MiB of Python each."""

PSBT_FIELDS_MAX: Final = 16_384
"""Key-value pairs in one PSBT: the shortest take 1.2 MiB of Python, where 512 KiB of them would be 130,000 pairs."""

PSBT_INPUTS_MAX: Final = 250
"""Inputs (X17): what a person can still be asked about, and 58 kWU of key-path spends."""

PSBT_OUTPUTS_MAX: Final = 250
"""Outputs (X17): every one is shown before anything is signed (X2)."""

TX_WEIGHT_MAX_WU: Final = 400_000
"""Weight units of the finished transaction: beyond it nodes do not relay it."""

MONEY_MAX_SAT: Final = 21_000_000 * 100_000_000
"""All the coins there can be: no amount, and no sum of amounts, is more (X13)."""

ADDRESS_GAP: Final = 20
"""Change this many addresses beyond the last one used is still found by a wallet restored from its descriptor (X5)."""

DERIVATION_HINTS_MAX: Final = 2
"""Different (branch, index) pairs tried per input or output. Honest PSBTs name one; each costs a derivation."""

DERIVATION_CACHE_MAX: Final = 8192
"""Derived keys that are remembered in the process: at some 500 bytes each 4 MiB."""

ADDRESS_CACHE_MAX: Final = 512
"""Derived addresses that one wallet remembers: 250 inputs, their change and the windows of the gap fit at once."""

GROUP_KEYS_MAX: Final = 1000
"""Cosigners of one wallet: the largest star that was measured."""

DESCRIPTOR_MAX_CHARS: Final = 192 * KIB
"""A descriptor as text: 1,000 extended keys of 112 characters with origin and path."""

LOCKTIME_AHEAD_BLOCKS: Final = 144
"""A day of blocks: a transaction locked for longer than this needs a person's word (X8)."""

LOCKTIME_AHEAD_S: Final = 86_400
"""The same by the clock."""

FEE_RATE_MAX_SAT_VB: Final = 500
"""Satoshi per virtual byte above which the fee must be typed by a person (X3): fuller mempools were rare and short."""

FEE_SHARE_MAX_PERCENT: Final = 5
"""The same as a share of what is sent."""

FEE_CAP_SAT: Final = 1_000_000
"""The same as an amount: 0.01 BTC."""

# --- one key file -------------------------------------------------------------------------------------------------

KDF_MEMORY_KIB: Final = (19 * KIB, 2 * MIB)
"""Least and most memory of one guess at a passphrase, in KiB: OWASP's least, and 2 GiB, so that no file exhausts us."""

KDF_PASSES: Final = (2, 10)
"""Least and most passes over that memory."""

KDF_LANES: Final = (1, 16)
"""Least and most threads."""

# --- one signature ----------------------------------------------------------------------------------------------

SLOTS_MAX: Final = 1000
"""Secret nonces of one attempt, one for each input and musig key: 250 inputs (THREATS.md X17) with four keys each
that are ours. 160 KiB of locked memory."""

KEY_AGGREGATES_MAX: Final = 512
"""Aggregations remembered. A transaction of 250 inputs whose keys are derived before they are aggregated needs 250,
and a second one may be under way. One is 0.7 KiB with 3 keys and 73 KiB with 1,000: 37 MiB at the very most."""

# --- one ceremony ----------------------------------------------------------------------------------------------

PUBLIC_NONCE_BYTES: Final = 66
"""BIP-327: two points, for each slot."""

PARTIAL_BYTES: Final = 32
"""BIP-327: one scalar, for each slot."""

SIGNATURE_BYTES: Final = 64
"""BIP-340, for each slot."""

ATTEMPTS_MAX: Final = 16
"""Attempts of one session: each costs every signer two rounds; more restarts are not bad luck."""

NONCE_TTL_S: Final = 120.0
"""How long secret nonces may wait for the others' (THREATS.md K5): two round trips are seconds even over Tor."""

SESSION_MAX_S: Final = 86_400.0
"""The furthest a proposal may expire ahead: a day for people to approve (P3)."""

SESSIONS_PER_PROPOSER_MAX: Final = 4
"""Open sessions of one proposer (P3)."""

SESSIONS_PER_GROUP_MAX: Final = 8
"""Open sessions of one group (P3)."""

EARLY_MESSAGES_MAX: Final = 4
"""Messages of one member that are kept for sessions whose proposal has not arrived: an approval, a nonce, a partial
and one to spare. Each is at most 4 MiB, and honest ones a few kilobytes."""

PROGRESS_NAMES_MAX: Final = 16
"""Members named where a session says whom it waits for: more is a number to a person, and 1,000 names a cost."""

POLICY_VERSION: Final = 0
"""Part of the group id: cosigners who would judge a PSBT by other rules are not one group (P10)."""

PROOF_MAX_BYTES: Final = 256
"""A proof of consent: a signature or a MAC, with room for its kind."""

BLAME_MAX_BYTES: Final = 2 * MIB
"""A blame record: a proposal of 512 KiB, and of 15 signers the nonces of 100 slots or of 1,000 signers those of one."""

# --- one journal -----------------------------------------------------------------------------------------------

JOURNAL_KEY_MAX_BYTES: Final = 128
"""A key: a session id with an attempt, an epoch and a type, or a digest."""

JOURNAL_BODY_MAX_BYTES: Final = MESSAGE_MAX_BYTES
"""A body: a whole message at most, as in the proof of a blame."""

JOURNAL_GROUP_MAX_RECORDS: Final = 1024
"""Records that share one commit: beyond it the sync is a small part of the cost."""

JOURNAL_WAITING_MAX_RECORDS: Final = 16_384
"""Records that wait for the disk; then the caller is told. One request of any size is always taken."""

JOURNAL_PRUNE_MAX_RECORDS: Final = 1024
"""Records deleted in one commit: some 10 ms, in which nothing else is stored."""

JOURNAL_PAGE_RECORDS: Final = 16
"""Records in memory at once while a journal is read: 64 MiB of the largest."""

JOURNAL_CHECKPOINT_BYTES: Final = 4 * MIB
"""The log is copied into the database after about so much: SQLite's own default, 1,000 pages."""

# --- one link --------------------------------------------------------------------------------------------------

NOISE_MESSAGE_MAX_BYTES: Final = 65_535
"""BOLT 8: a two-byte length."""

ROTATE_AFTER_MESSAGES: Final = 1000
"""BOLT 8: encryptions with one key, two per message; then the key is rotated."""

FRAGMENT_BYTES: Final = 32 * KIB
"""What one frame carries of a larger message. Large enough that the two AEAD calls are 10 % of a core at
100 MB/s, small enough that a partial signature waits 0.26 s behind it on a 1 Mbit/s uplink, not 34 s."""

ACKS_PER_FRAME_MAX: Final = 255
"""Message ids acknowledged in one frame: a one-byte count."""

FAULTS_PER_MESSAGE_MAX: Final = 2
"""Links that a peer may close for a fault before the oldest message on them is given up. One may be by chance, three
would be one reconnect more for nothing."""

CLOSE_TEXT_MAX_BYTES: Final = 200
"""The sentence in a close notice."""

REASSEMBLY_MAX_BYTES: Final = 32 * MIB
"""Fragments held for incomplete messages in the whole node: eight full-size messages at once."""

PRIORITIES: Final = 4
"""Round 2, round 1, control, bulk. One incomplete message of each may be in flight from a peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds one node may choose for itself. All configurable; the defaults are those of TARGETS.md."""

    # Time. Every deadline is for the whole of a thing, never per byte: a slow-loris pays nothing per byte.
    act_one_timeout_s: float = 2.0
    """A dialler's 50 bytes of act one: it sends them with the connection, so 2 s is many round trips."""
    handshake_timeout_s: float = 5.0
    """All three acts and the first announcement: four round trips over Tor at their worst."""
    frame_timeout_s: float = 10.0
    """From the first byte of a frame to its last: 64 KiB at 6.4 KiB/s."""
    dial_timeout_s: float = 10.0
    """A TCP connection before its handshake: the first retransmissions of a SYN at 1, 3 and 7 s fit in."""
    ping_interval_s: float = 30.0
    """Keep-alive, with +-20 % jitter so that a thousand links do not beat together. Home routers forget a
    silent TCP mapping after 2 minutes or more."""
    dead_after_s: float = 50.0
    """Silence after which a link is dead: the longest ping interval, 36 s, and 14 s for the answer."""
    stop_timeout_s: float = 2.0
    """What `stop` waits for accepted bytes to leave and for handlers to return."""

    # A signing session.
    phase_timeout_s: float = 8.0
    """What one round of an attempt may take; then the next attempt begins. Ten round trips over Tor; three of them
    in a row name a silent cosigner in less than 30 s."""
    silent_attempts_max: int = 3
    """Attempts in a row that the same cosigner did not answer; then the session ends and says who was waited for."""
    reapprove_s: float = 20.0
    """How often a proposal and our approval are said again while others are waited for: they may have restarted."""

    # Reconnecting.
    backoff_min_s: float = 0.25
    """The first retry: most lost links are a restart or a race, over in milliseconds."""
    backoff_max_s: float = 30.0
    """The longest wait between retries, before +-30 % jitter. A link that lasted 5 s starts again at the shortest."""

    # Slots. Strangers can only ever fill these, never memory.
    inbound_slots: int = 64
    outbound_slots: int = 16
    half_open_slots: int = 16
    """Inbound links that have not finished their handshake: 16 x 5 s is 3 slow-lorises a second, at most."""
    half_open_per_prefix: int = 4
    """Of those from one IPv4 /32 or IPv6 /64, so that one host cannot hold them all."""
    accepts_per_wake: int = 32
    """Connections taken from the kernel per turn of the loop: links that are up get their turn in between."""
    descriptors_share: float = 0.8
    """Of RLIMIT_NOFILE: beyond it new connections are closed at once, so that journals and dials still get one."""

    # Memory.
    reassembly_max_bytes: int = REASSEMBLY_MAX_BYTES
    receive_window: int = 1024
    """Message ids remembered per sender and boot epoch, by arrival. More messages than this never overtake
    another one: a sender keeps at most `unacked_max` in the air."""
    epochs_per_sender: int = 4
    """Boot epochs whose windows are kept per sender: messages signed before a restart or two still arrive."""
    unacked_max: int = 512
    """Messages on their way to one peer and not yet acknowledged; then `send_message_to` waits."""
    unacked_max_bytes: int = 8 * MIB
    """The same in bytes: two messages of full size. One message is always allowed."""
    inbox_max: int = 64
    """Messages waiting for one peer's handler; then reading from that peer pauses."""
    write_chunk_bytes: int = 128 * KIB
    """Encrypted bytes handed to the socket ahead of what it took: what a late, urgent message still waits for."""
    peers_max: int = 4096
    """Keys in the book (THREATS.md T12)."""

    # Work.
    verify_batch: int = 16
    """Messages in one read from which a second thread takes half of the signatures. Below it, starting costs more."""
    log_lines_per_s: float = 1.0
    """Lines about refused strangers, in all; what was left out is counted in the next one."""
