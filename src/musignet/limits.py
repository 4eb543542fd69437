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

CHAT_STRANGERS_MAX: Final = 8
"""Keys that a chat shows to be let in. Anybody can make more, and none of them costs a line on the screen."""

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

ANNOUNCEMENT_KEPT_MAX_BYTES: Final = 2 * KIB
"""A signed announcement that is kept of each peer of the book, to show it to that peer (THREATS.md K4): eight addresses
of 128 characters, 32 features and a label of 64 take 1.5 KiB. A larger one is not kept."""

CHANGES_COUNTED_AFTER_S: Final = 1.0
"""Seconds from a step of a session until it is counted on disk and announced: one count for a whole ceremony, and off
the path of its rounds. What a crash takes within this second was not counted."""

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

ACCOUNT_MAX: Final = 2**31 - 1
"""The highest account of a wallet key: a hardened step of BIP-32 has no more."""

KEY_TEXT_MAX_CHARS: Final = 112
"""One key as text: an extended key is 111 characters, a point in hex 66."""

GROUP_FILE_MAX_BYTES: Final = 768 * KIB
"""A group file: 1,000 members of at most 510 bytes each, and their descriptor, which is written out once more."""

BITCOIN_ADDRESS_MAX_CHARS: Final = 90
"""A Bitcoin address as text: BIP-173."""

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

# --- one chain backend ------------------------------------------------------------------------------------------

CHAIN_CALL_TIMEOUT_S: Final = 20.0
"""One question to a chain backend (a fee rate, a broadcast, a block hash): a few round trips over Tor."""

CHAIN_SYNC_TIMEOUT_S: Final = 120.0
"""A whole scan for a wallet's coins: 40 addresses of the gap take some 10 s over Tor, a busy wallet's hundreds more."""

CHAIN_HUNG_MAX: Final = 4
"""Calls past their deadline whose thread has not come back; then no more are begun. Each is a thread and a socket."""

CHAIN_PARALLEL_REQUESTS: Final = 4
"""Requests of one scan that are on their way at once: what public servers bear."""

CHAIN_HISTORY_MAX_PAGES: Final = 200
"""Pages of 25 transactions of one address. A server without an end must not keep a thread busy for ever."""

CHAIN_ADDRESSES_MAX: Final = 10_000
"""Addresses of one branch that are asked for one by one: far more than two minutes are enough for."""

REGTEST_BODY_MAX_BYTES: Final = MIB
"""What is posted to the regtest chain: the largest standard transaction in hex is 800,000 characters."""

FEE_TARGET_BLOCKS: Final = 6
"""An hour, on average: what a fee estimate is for when nobody says otherwise."""

FEE_TARGET_MAX_BLOCKS: Final = 1008
"""A week: no backend estimates further."""

# --- one key file -------------------------------------------------------------------------------------------------

KDF_MEMORY_KIB: Final = (19 * KIB, 2 * MIB)
"""Least and most memory of one guess at a passphrase, in KiB: OWASP's least, and 2 GiB, so that no file exhausts us."""

KDF_PASSES: Final = (2, 10)
"""Least and most passes over that memory."""

KDF_LANES: Final = (1, 16)
"""Least and most threads."""

PASSPHRASE_MAX_BYTES: Final = 1024
"""A passphrase from a file descriptor: forty words, and no file given by mistake."""

# --- one signature ----------------------------------------------------------------------------------------------

SLOTS_MAX: Final = 1000
"""Secret nonces of one attempt, one for each input and musig key: 250 inputs (THREATS.md X17) with four keys each
that are ours. 160 KiB of locked memory."""

KEY_AGGREGATES_MAX: Final = 512
"""Aggregations remembered, with or without tweaks. A transaction of 250 inputs needs 502 at most: two for each address,
and two for all. One is 0.7 KiB with 3 keys and 73 KiB with 1,000, where it is no tweak on another: 37 MiB at the very
most."""

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

NONCE_TTL_MAX_S: Final = 24 * 3600.0
"""The longest that a policy may let secret nonces wait for cosigners whose part is carried by hand: a stick that takes
longer than a day begins another attempt."""

CLOCK_TICK_S: Final = 0.25
"""How often the clocks are compared while secret nonces are alive (K5)."""

CLOCK_SLEEP_MAX_S: Final = 2.0
"""Sleep beyond this kills the nonces (K5): shorter ones are the jitter of two clocks read one after the other."""

CLOCK_STEP_MAX_S: Final = 5.0
"""A step of the wall clock that kills the nonces (K5): NTP slews smaller ones."""

CLOCK_STALL_MAX_S: Final = 5.0
"""A pause of the ticker that kills the nonces (K5): a stopped process, or a paused machine that hides it."""

PIPE_FRAME_MAX_BYTES: Final = 64 * MIB
"""One message between node and keyholder: the nonces of 1,000 signers for 250 slots are 17 MiB."""

PIPE_CHUNK_BYTES: Final = 64 * KIB
"""What is read from that pipe at once: what a pipe holds."""

PIPE_ACCOUNT_MAX_CHARS: Final = 256
"""A key with its origin: `[fingerprint/87h/1h/2147483647h]` and 111 characters."""

PIPE_TEXT_MAX_CHARS: Final = 1024
"""The sentence of an error between node and keyholder: text, facts and hint of 240 characters each."""

HANDLER_CANCEL_S: Final = 2.0
"""What a handler of the application has for its own end once it is cancelled. Then the node stops without it."""

HOLDER_STOP_S: Final = 5.0
"""What a keyholder may take to end once its pipe is closed: a commit to a slow disk. Then SIGTERM says so, and
after as long again it is killed, which loses nothing that it acknowledged."""

HOLDER_ASKING_STOP_S: Final = 0.5
"""The same for one that may be asking a person: it reads nothing meanwhile. SIGTERM makes it give the terminal back."""

SESSION_MAX_S: Final = 86_400.0
"""The furthest a proposal may expire ahead: a day for people to approve (P3)."""

SESSIONS_PER_PROPOSER_MAX: Final = 4
"""Open sessions of one proposer (P3)."""

SESSIONS_PER_GROUP_MAX: Final = 8
"""Open sessions of one group (P3)."""

SESSIONS_NAMED_MAX: Final = 256
"""Earlier sessions that one approval may replace: one for each input, and a few to spare."""

SESSIONS_FAILED_PER_PROPOSER_MAX: Final = 32
"""Sessions of one proposer that came to nothing, until they expire: each stays in memory, with up to 2 MiB of PSBT, to
answer those who come back, and in the journal for good. A member could propose and leave without an end."""

SESSION_FAILED_COUNTS_S: Final = 3600.0
"""How long such a session counts at least, however soon it expires: one makes 16 MiB of journal an hour at most."""

EARLY_MESSAGES_MAX: Final = 4
"""Messages of one member that are kept for sessions whose proposal has not arrived: an approval, a nonce, a partial
and one to spare. Each is at most 4 MiB, and honest ones a few kilobytes."""

CEREMONY_WAITING_MAX: Final = 256
"""Messages of ceremonies that wait behind `unacked_max` of them for one peer, who acknowledges none: 32 sessions with
eight each. More are not sent: a member could fill the memory by proposing, and never acknowledging our refusals."""

PROGRESS_NAMES_MAX: Final = 16
"""Members named where a session says whom it waits for: more is a number to a person, and 1,000 names a cost."""

POLICY_VERSION: Final = 0
"""Part of the group id: cosigners who would judge a PSBT by other rules are not one group (P10)."""

APPROVER_BYTES: Final = 32
"""The approver's public key, x-only (BIP-340)."""

APPROVER_FILE_MAX_BYTES: Final = 1 * KIB
"""The approver's file: six short fields, 250 bytes."""

POLICY_FILE_MAX_BYTES: Final = 64 * KIB
"""A policy file: a page of comments and a long list of addresses."""

POLICY_ADDRESSES_MAX: Final = 500
"""Addresses that a policy allows: 45 KiB of the longest."""

POLICY_DAY_S: Final = 86_400.0
"""What `max_amount_per_day_sat` counts: the 24 hours before an approval, not a date."""

PROOF_MAX_BYTES: Final = 256
"""A proof of consent: a signature or a MAC, with room for its kind."""

BLAME_MAX_BYTES: Final = 2 * MIB
"""A blame record: a proposal of 512 KiB, and of 15 signers the nonces of 100 slots or of 1,000 signers those of one."""

BLAME_FILE_MAX_BYTES: Final = GROUP_FILE_MAX_BYTES + BLAME_MAX_BYTES * 4 // 3 + KIB
"""A blame record in base64, and its group."""

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

OUTBOX_TTL_MAX_S: Final = 30 * 86_400.0
"""The longest a message may be kept for a peer. So long, from its arrival, the receiver remembers the id of what it has
handled: as the sender counts from before that, no two clocks need to agree."""

JOURNAL_CHECKPOINT_BYTES: Final = 4 * MIB
"""The log is copied into the database after about so much: SQLite's own default, 1,000 pages."""

# --- the local API ---------------------------------------------------------------------------------------------

API_BODY_MAX_BYTES: Final = 2 * MIB
"""One request: a PSBT of 512 KiB in base64, or a group file of 1,000 keys, with room."""

API_CLIENT_TIMEOUT_S: Final = 30.0
"""What a command waits for an answer: reviewing 250 inputs takes a second, deriving a key from a passphrase another."""

API_JOIN_TIMEOUT_S: Final = 300.0
"""The same for `musignet join`: four addresses, each an onion service that takes its time or is away."""

API_EVENT_LINE_MAX_BYTES: Final = 512 * KIB
"""One event as JSON: ids and a sentence, and 1,000 members waited for: labels of 64 characters, 4 bytes each."""

API_EVENT_CLIENTS_MAX: Final = 32
"""Event streams at once: a screen, a wallet and a script or two have one each."""

API_CONNECTIONS_MAX: Final = 64
"""Connections to one socket of the API at once: the event streams, and as many commands. Others of this machine reach
the TCP port, too; without a bound they could take every descriptor that the node has."""

API_EVENTS_WAITING_MAX: Final = 256
"""Events that wait for one client; then it is told that it missed some, and reads everything again."""

API_KEEP_ALIVE_S: Final = 15.0
"""How often an event stream that has nothing to say says so: a reader can tell silence from a dead node."""

API_HEAD_MAX_BYTES: Final = 16 * KIB
"""The head of one request: a line and a dozen headers."""

API_IDLE_S: Final = 5.0
"""How long a connection without a request is kept, or one whose head is not whole. A command uses one for each request
anyway."""

SESSIONS_LISTED_MAX: Final = 100
"""Sessions in one answer, the newest; older ones are found by id."""

SESSIONS_REMEMBERED_MAX: Final = 256
"""Sessions that never came to a record, kept until the node stops: those that a rule refused at once."""

# --- the log ---------------------------------------------------------------------------------------------------

LOG_FILES: Final = 5
"""Log files that are kept, the one being written included (THREATS.md Z6)."""

LOG_FILE_MAX_BYTES: Final = 10 * MIB
"""Of each of them: 50 MiB in all, some 400,000 lines."""

LOG_LINE_MAX_CHARS: Final = 2000
"""One line: a sentence, or an error with the end of its traceback."""

LOG_SOURCES_MAX: Final = 4096
"""Peers whose lines are counted: as many as the book holds."""

LOG_LINK_LINES_MAX: Final = 2
"""Lines about one peer's links that are always written in `LOG_LINK_LINES_S`: connected, and gone."""

LOG_LINK_LINES_S: Final = 60.0
"""The time for those. A peer that comes and goes more often shares the second's line with the refused."""

LOG_AHEAD_MAX_LINES: Final = 2
"""Lines ahead of one a second after which a refusal or a fault may still be told: a peer connects, and its fault."""

LOG_DEBT_MAX_S: Final = 60.0
"""How long lines that were written in any case hold the others back: a line a second, over a minute."""

# --- one hole through two NATs -----------------------------------------------------------------------------------

ICE_CANDIDATES_MAX: Final = 16
"""Addresses in one offer or answer: four sockets with what a STUN server saw of each, and relays."""

ICE_PER_HOST_MAX: Final = 4
"""Of those at one IP address: a peer may not aim more of our checks at a machine that is not its own."""

STUN_SERVERS_MAX: Final = 2
"""STUN servers, and TURN servers, that are asked: one may be down. Each hears of every attempt."""

ICE_SOCKETS_MAX: Final = 4
"""Own addresses that a hole is tried from: IPv4 and IPv6, twice over. Each costs a socket and a check per candidate."""

ICE_PAIRS_MAX: Final = 64
"""Pairs of addresses checked in one attempt, with what the checks themselves turn up (RFC 8445 6.1.2.5 says 100)."""

ICE_EARLY_DATAGRAMS_MAX: Final = 32
"""Datagrams that are kept while ICE still decides: a QUIC handshake begins with two."""

ICE_ATTEMPTS_MAX: Final = 8
"""Offers that are answered at once, one of each peer."""

BROADCAST_PAUSE_S: Final = (5.0, 600.0)
"""Between two tries to pass a finished transaction on, doubling from the first to the last: a block takes as long."""

PORT_MAPPING_LEASE_S: Final = 3600
"""A forwarded port: a node that dies without giving it back leaves it open for an hour at most."""

PORT_MAPPING_PAUSE_MIN_S: Final = 60.0
"""Between two renewals, whatever lease a router grants, and after one that failed."""

PORT_MAPPING_S: Final = 8.0
"""One conversation with a router: NAT-PMP's first five transmissions, or UPnP's four searches and three requests."""

PORT_MAPPING_ANSWER_MAX_BYTES: Final = 4 * KIB
"""What the process that speaks UPnP may say: an address, a port and a sentence."""

QUIC_WINDOW_BYTES: Final = MIB
"""What a peer may send ahead of what we took: 100 Mbit/s over 80 ms. All that a punched link holds unread."""

TURN_LIFETIME_MIN_S: Final = 30
"""The least that a TURN server's address is taken to be lent for: it is asked again before that, and no more often."""

QUIC_HOLES_MAX: Final = 1024
"""Holes in what has arrived of a punched link's stream, and in the numbers of its packets: the window is 900 packets.
aioquic looks at all of them with each frame."""

QUIC_DATAGRAM_MAX_BYTES: Final = 2 * KIB
"""A datagram on a punched path: more fits into no Ethernet frame, and holds more frames than anybody honest sends."""

# --- one pairing, one founding ----------------------------------------------------------------------------------

INVITE_MAX_CHARS: Final = 1023
"""An invite as text: the longest string for which Bech32's code was chosen (BIP-173 "Checksum design")."""

INVITE_ADDRESSES_MAX: Final = 4
"""Addresses in an invite: IPv4, IPv6, LAN and an onion. The QR code stays readable."""

INVITE_SECRET_BYTES: Final = 16
"""The one-time secret of an invite: 2^128 guesses over a network."""

INVITE_CHECK_BYTES: Final = 4
"""A digest inside an invite: Bech32m promises to find one wrong character in at most 90."""

INVITE_TTL_S: Final = 600.0
"""How long an invite is open unless its maker says otherwise: two people at their screens."""

INVITE_TTL_MAX_S: Final = 86_400.0
"""The longest an invite may be open: a day, for cosigners in other time zones."""

INVITES_OPEN_MAX: Final = 8
"""Invites open at once at one node."""

INVITE_GUESTS_MAX: Final = 8
"""Keys that may come with one invite: it is for one person, who may come again or with another device. Each costs a
check phrase, 0.1 s, and a place in the book. An invite with which more come has leaked: the next one is turned away."""

DESK_WAITING_MAX: Final = 1024
"""Words about pairings, foundings and relays that wait for one peer who acknowledges nothing; more are not said."""

PROVISIONAL_PEERS_MAX: Final = 8
"""Unconfirmed keys that are let in at once while an invite is open. Strangers can fill these, and nothing else."""

PAIR_HELLO_TIMEOUT_S: Final = 10.0
"""What an unconfirmed key has to show that it knows the invite: two round trips over Tor."""

PAIR_COMPARE_TIMEOUT_S: Final = 600.0
"""What two people have to compare six words."""

PAIR_LINKS_MAX: Final = 16
"""Links of one pairing: a line that breaks more often needs a new invite. Each costs the words once."""

CHECK_PHRASE_WORDS: Final = 6
"""66 bits: whoever stands between needs two handshakes whose words agree."""

CHECK_PHRASE_ROUNDS: Final = 100_000
"""PBKDF2 rounds for the words, some 0.1 s: looking for two handshakes of one phrase takes 2^33 of them, in 5 s."""

FOUNDING_MEMBERS_MAX: Final = 15
"""Members of a group that is founded over links: everybody speaks to everybody (DESIGN.md "Mesh")."""

FOUNDING_TTL_S: Final = 3600.0
"""How long a proposed group waits for its members unless the proposer says otherwise."""

FOUNDING_MAX_S: Final = 86_400.0
"""The furthest a founding may expire ahead: a day for people to look."""

CLOCK_SKEW_S: Final = 600.0
"""How far the clocks of two members may differ where a proposal's end is judged."""

FOUNDINGS_OPEN_MAX: Final = 8
"""Proposed groups that wait at one node."""

FOUNDINGS_PER_PROPOSER_MAX: Final = 2
"""Of those by one peer."""

FOUNDINGS_FAILED_PER_PROPOSER_MAX: Final = 16
"""Groups proposed by one peer that came to nothing and have not expired: a person was asked about each, and it is
remembered so that nobody is asked again."""

FOUNDING_PAYLOAD_MAX_BYTES: Final = 16 * KIB
"""A proposal of 15 members, and around it a key with its proof: 6 KiB."""

ADDRESS_INDEX_MAX: Final = 1_000_000
"""The highest index of an address that is given out: a thousand a day for three years. A wallet that is restored has
to look at every one."""

XPUB_MAX_CHARS: Final = 256
"""An extended key as text with its origin: 111 characters, and a path of a dozen steps."""

# --- one sealed bundle: files, QR codes, letters left with a relay ------------------------------------------------

SEALED_MAX_BYTES: Final = 1 * MIB
"""A bundle for one peer: a proposal with the largest PSBT and its rounds. What is more waits for the next one."""

SEALED_ENVELOPES_MAX: Final = 4096
"""Messages in one bundle: what 4,096 of the outbox are."""

SEALED_IDS_MAX: Final = 4096
"""Acknowledgements in one bundle: as many as messages can have come."""

SEALED_TTL_S: Final = 7 * 86_400.0
"""How long a bundle may be imported unless somebody says otherwise: as long as the outbox keeps its messages."""

UR_PARTS_MAX: Final = 4096
"""Pieces of one sequence: a bundle of 64 KiB has 328."""

UR_SEQUENCES_MAX: Final = 4
"""Sequences that are collected at once: the right one, and what other screens show. A new one takes the place of the
oldest."""

UR_LINE_MAX_CHARS: Final = 8192
"""One part as text: what the largest QR code holds is 4,296 characters."""

UR_PART_BYTES: Final = 200
"""What one part carries: with its head 470 characters, a QR code of 65 modules. A terminal has 80 columns."""

QR_FRAMES_PER_S: Final = 6
"""Animated QR codes: what a telephone's camera reads without loss."""

# --- discovery on the local network -----------------------------------------------------------------------------

DISCOVERY_PORT: Final = 8738
"""The UDP port on which beacons are sent and heard: all nodes of a network, and of a machine, share it."""

BEACON_HOUR_S: Final = 3600.0
"""How long the tag of an audience stays the same: a listener can follow it no longer than that (THREATS.md U5)."""

BEACON_AGE_MAX_S: Final = 60.0
"""How far a beacon's time may be from ours (U3): clocks kept by NTP differ by less than a second."""

BEACON_NONCE_BYTES: Final = 12
"""Random, under a key of one audience and one hour: 2^32 beacons of an hour meet with a chance of 2^-33."""

BEACON_PORT_MIN: Final = 1024
"""The lowest port that a beacon can name (U1): nobody is made to knock at a privileged service."""

BEACONS_PER_ROUND_MAX: Final = 16
"""Audiences that one round of beacons is for; the others have the next rounds. 2.8 KiB on each interface."""

BEACON_PAUSE_MIN_S: Final = 1.0
"""Between the first rounds, and after something has changed; it doubles each time. Never sooner, whatever is heard
(U2)."""

BEACON_REPLY_S: Final = 0.1
"""Until the round that a newcomer or a change causes, if the last one is a second old: what changes together is said
once."""

BEACON_PAUSE_MAX_S: Final = 30.0
"""Between rounds when nothing changes: six of them before a sighting is forgotten."""

BEACONS_PER_SOURCE_S: Final = 20.0
"""Beacons for us from one address (U4): a node says each one by three ways at most, a few times a minute."""

BEACON_VERIFICATIONS_S: Final = 200.0
"""Signatures of beacons checked in all (U4): 1 % of a core."""

OPEN_VERIFICATIONS_S: Final = 20.0
"""The same of open beacons, apart: any stranger can make those, and they must not use up the others' share."""

BEACON_SOURCES_MAX: Final = 256
"""Addresses whose beacons are counted; the one silent for the longest is forgotten first."""

SIGHTINGS_MAX: Final = 256
"""Nodes in the table of sightings (U3); strangers are forgotten before members."""

SIGHTING_TTL_S: Final = 180.0
"""How long a node that is not heard again stays in it (U3)."""

SIGHTING_DIAL_PAUSE_S: Final = 30.0
"""Between two dials of one key for its beacons (U1)."""

BEACONS_PER_WAKE: Final = 64
"""Datagrams taken from the kernel per turn of the loop: links get their turn in between."""

MDNS_LOOKS_MAX: Final = 32
"""Services whose records are asked for at once; what comes meanwhile is left out (U4)."""

MDNS_ADDRESSES_MAX: Final = 8
"""Addresses of one service that are looked at: a machine with four networks, in both families."""

MDNS_TIMEOUT_S: Final = 3.0
"""For the records of one service: it answers within a second, or is gone."""

INTERFACES_MAX: Final = 16
"""Network interfaces that beacons are sent on: what a machine with many containers has is cut off here."""

LOOK_MAX_S: Final = 600.0
"""The longest that a node looks at open beacons, or sends them, for one request of a person."""

# --- one link --------------------------------------------------------------------------------------------------

NOISE_MESSAGE_MAX_BYTES: Final = 65_535
"""BOLT 8: a two-byte length."""

CIPHERS_AWAKE_MAX: Final = 64
"""Directions of links that keep their cipher object, 2 KiB each: 32 busy links. Making one takes some microseconds."""

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

SOCKS_TEXT_MAX_BYTES: Final = 255
"""A name, a user or a password for a SOCKS5 proxy: RFC 1928 and 1929 have one byte for its length."""

TOR_REPLY_MAX_BYTES: Final = 16 * KIB
"""One reply of Tor's control port: the longest that is asked for, PROTOCOLINFO, is some 200 bytes and a path."""

TOR_REPLY_MAX_LINES: Final = 64
"""The same in lines: four."""

TOR_CONTROL_TIMEOUT_S: Final = 10.0
"""One answer of Tor, on this machine: it has nobody to ask for it."""

ONION_VIRTUAL_PORT: Final = 8737
"""The port in every onion address of ours, whatever port is listened on: addresses differ by their keys."""

ONION_STREAMS_MAX: Final = 8
"""Streams that one visitor of an onion service may have open: a link, and a race or two. Who wants more is cut off."""

ONION_RETRY_MIN_S: Final = 1.0
ONION_RETRY_MAX_S: Final = 60.0
"""Pauses before the onion service is published again after Tor went away: a restart takes seconds, an upgrade a minute.
"""

PRIORITIES: Final = 4
"""Round 2, round 1, control, bulk. One incomplete message of each may be in flight from a peer."""

LINK_FRAMES_MAX: Final = 2**32
"""Frames in one direction of a link; then it is closed, and the next dial has fresh keys (THREATS.md T15). Keys rotate
every 500 frames: this ends a link before any counter could overflow. 2.7 years at 50 a second."""

FRAME_MIN_COST_BYTES: Final = 512
"""What a frame counts as at least in the bucket of bytes: opening an empty one is as much work as opening so many."""

# --- what others are thought of ---------------------------------------------------------------------------------

SCORES_MAX: Final = 4096
"""Peers with a score (THREATS.md T12): as many as the book holds."""

SCORES_FILE_MAX_BYTES: Final = 4 * MIB
"""The file of the scores: at most 400 bytes each, and twice as much to be sure."""

PREFIXES_MAX: Final = 4096
"""Address prefixes that are remembered (T12), the least recently used forgotten first: some 2 MiB."""

REFUSAL_MIN_S: Final = 60.0
"""The first refusal of a peer or a prefix; each that follows soon is twice as long."""

REFUSAL_COSIGNER_MAX_S: Final = 900.0
"""The longest that a cosigner is not let in (T12): it is needed for every signature."""

REFUSAL_STRANGER_MAX_S: Final = 3600.0
"""The same for a key that nobody has confirmed."""

PREFIX_REFUSAL_MAX_S: Final = 600.0
"""The same for an address prefix, before a key is proved (T12): many share one, and can be made to look guilty."""

PREFIX_PARDON_S: Final = 60.0
"""How long a prefix is not refused again: a cosigner behind it dials once in 40 s at least."""

KNOWN_PREFIX_FACTOR: Final = 10
"""How many times as many handshakes a prefix may begin where a cosigner came from: several may share a router. All of
them fail at 0.6 % of a core."""

TLS_HANDSHAKE_COST_S: Final = 0.0005
"""What TLS counts for before our own handshake inside it: 0.23 ms in OpenSSL and as much around it, spent where no
clock of ours runs."""

WELCOME_S: Final = 86_400.0
"""How long a prefix is known after a cosigner came from there: a cosigner who connects once a day stays known."""

# --- one relay --------------------------------------------------------------------------------------------------

RELAY_FRAME_MAX_BYTES: Final = 64 * KIB
"""One message from a relay (THREATS.md R5). Our largest event has 55 KiB."""

RELAY_STEPS_BYTES: Final = (1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB)
"""What a relay sees is at most one of these, and of each always the same size (R3)."""

RELAY_TEXTS: Final = (320, 2560, 10_240, 40_960)
"""The characters inside the encryption that fill those steps: exact steps of NIP-44's own padding."""

RELAY_SEGMENT_BYTES: Final = 30_658
"""What one event carries of a link: the largest text in base64 without length and head."""

RELAY_LINK_ID_BYTES: Final = 16
"""Who does not know it cannot speak on the link: 2^128 guesses."""

RELAY_WINDOW: Final = 16
"""Events of a link that are on their way in each direction. 0.5 MiB: 1.5 MB/s over a third of a second."""

RELAY_ACK_EVERY: Final = 4
"""Events after which an acknowledgement leaves at once, so that a full window keeps moving."""

RELAY_ACK_WAIT_S: Final = 0.1
"""What an acknowledgement waits for something to ride on: well below `RELAY_AGAIN_MIN_S`."""

RELAY_AGAIN_MIN_S: Final = 1.0
"""The first time an event is sent again (R1): several round trips over a relay."""

RELAY_AGAIN_MAX_S: Final = 30.0
"""The longest wait before that."""

RELAY_PERIOD_S: Final = 86_400
"""How long an inbox has one name (R3). A day: clocks may differ by as much."""

RELAY_TTL_S: Final = 90_000
"""When an event expires (NIP-40). Relays do not store this kind; one that does all the same keeps it for a day, because
the clocks of sender and relay may differ by as much."""

RELAY_EVENTS_PER_S: Final = 50.0
"""Messages that are read from one relay per second (R5); what comes faster waits in its connection."""

RELAY_EVENTS_BURST: Final = 400
"""The same for a moment: a ceremony of 15 is 14 peers with some ten events each."""

RELAY_SEEN_MAX: Final = 4096
"""Ids of events that are remembered, so that what comes from several relays is opened once."""

RELAY_REPEATS_MAX: Final = 16
"""Events that one relay may send twice: what arrives while a subscription begins may be in both of its halves."""

RELAY_SUBSCRIPTION_MAX: Final = 200
"""Stored events that are asked for at a time (R5)."""

RELAYS_MAX: Final = 4
"""Relays of one node: each event goes to every one of them."""

GROUP_RELAYS_MAX: Final = 3
"""Relays of one group: where its members look for each other beside their own."""

RELAYS_READ_MAX: Final = 8
"""Relays at which one node reads its inbox: its own, and those of its first groups. Half of `RELAY_LINES_MAX`."""

RELAYS_FILE_MAX_BYTES: Final = 4 * KIB
"""The file with a group's relays: three addresses."""

RELAY_LINES_MAX: Final = 16
"""Relays that one node is connected to at a time: its own, and those where others have their inboxes."""

RELAY_WAITING_MAX: Final = 64
"""Events that wait for one relay: four full windows. What does not fit is dropped, and sent again."""

RELAY_IDLE_S: Final = 60.0
"""How long a relay that is not ours is kept without a link over it."""

RELAY_BACKOFF_S: Final = (0.5, 300.0)
"""The first and the longest pause before a relay is connected to again. Doubled each time; it starts again only after
a quiet minute (`RELAY_QUIET_S`), so that a relay that breaks the rules is soon asked seldom."""

RELAY_QUIET_S: Final = 60.0
"""What a connection to a relay has to last before the pauses are short again."""

RELAY_CHALLENGE_MAX_CHARS: Final = 256
"""A challenge of NIP-42; relays use 16 to 64."""

RELAY_CHALLENGES_MAX: Final = 8
"""Challenges and refusals for want of an answer in one connection: one for each subscription, and some relays say both
again."""

RELAY_VISIT_S: Final = 30.0
"""The reading of another day's inbox at a relay that shows one for each connection: 200 events at 50 a second are 4."""

RELAY_PROBE_S: Final = 3.0
"""What `musignet doctor` waits for what it said to a relay to come back: a proof of whose inbox it is, and a round trip
over Tor."""

RELAY_PROBE_AGAIN_S: Final = 0.5
"""Between two things that it says there: what came before the proof is lost."""

RELAY_PINGS_MAX: Final = 10_000
"""Pings of one connection that are answered: one every ten seconds for a day. Then it is made anew."""

RELAY_PINGS_S: Final = 86_400.0
"""Who took longer for these has broken no rule."""

LETTER_MAX_BYTES: Final = MIB
"""A sealed bundle that is left at a relay: a proposal with a PSBT of 512 KiB. Larger messages wait for a link."""

LETTERS_HELD_MAX_BYTES: Final = 4 * MIB
"""Of letters of which parts are missing: four of the largest."""

LETTER_LINKS_MAX: Final = 256
"""Peers that letters are left for or come from at a time: the largest group over links has 15 members."""

LETTER_DAYS: Final = 8
"""Days back whose inboxes are read: as long as letters last, and a clock that is wrong."""

LETTER_TTL_S: Final = 7 * 86_400
"""How long relays keep a letter: as long as the outbox keeps a message."""

LETTER_GATHER_S: Final = 0.5
"""What a letter waits for more to go into it: what a session says to somebody who is away comes in one go."""

LETTER_AGAIN_S: Final = 21_600.0
"""After six hours what nobody fetched is left again: relays forget."""

RELAY_SERVE_CLIENTS_MAX: Final = 2000
"""Connections that `musignet relay` takes: 1,000 nodes, each with a second one that is about to replace the first."""

RELAY_SERVE_EVENTS_PER_MINUTE: Final = 6000
"""Events that it takes from one connection: a node that sends without a pause at the pace at which others read."""

RELAY_SERVE_MAIL_MAX: Final = 16_384
"""Events that it stores: a GiB of the largest. Anybody can leave some; then there is no room until some expire."""

RELAY_SERVE_TTL_MAX_S: Final = 8 * 86_400
"""How far ahead an event that it stores may expire: a message for a cosigner on holiday, and a clock that is wrong."""

RELAY_SERVE_INBOXES_MAX: Final = 16
"""Inboxes in one filter of a subscription: a node asks for ten, those of the days around today."""

RELAY_SERVE_SKEW_S: Final = 2 * 86_400
"""How far the time in an event may be from now: NIP-59 allows senders to go back two days."""

RELAY_SERVE_SWEEP_S: Final = 3600.0
"""How often what has expired is deleted from its disk."""

RELAY_RESETS_PER_S: Final = 5.0
"""Answers to pieces of links that nobody here knows: one for each link, and never many."""

RELAY_STRAYS_MAX: Final = 1024
"""Links that are remembered as not known, so that each gets one such answer."""


NETWORK_POLL_S: Final = 2.0
"""How often a node looks whether it slept or has other addresses. Links are asked at most so often because of it."""

DIAL_STAGGER_S: Final = 0.25
"""After so long without an answer a peer's next address is dialled too: RFC 8305's recommendation."""

DIALS_PER_PEER_MAX: Final = 3
"""Dials to one peer at once: each holds an outbound slot."""


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
    proxy_dial_timeout_s: float = 60.0
    """The same through a proxy: Tor looks an onion service up and builds three circuits, 2 to 20 s; once more, and
    a slow one."""
    ping_interval_s: float = 30.0
    """Keep-alive, with +-20 % jitter so that a thousand links do not beat together. Home routers forget a
    silent TCP mapping after 2 minutes or more."""
    dead_after_s: float = 50.0
    """Silence after which a link is dead: the longest ping interval, 36 s, and 14 s for the answer."""
    stop_timeout_s: float = 2.0
    """What `stop` waits for accepted bytes to leave and for handlers to return."""

    # A hole through two NATs: every phase has its own end.
    ice_gather_s: float = 3.0
    """Our own addresses, from STUN and TURN servers: two retransmissions of a lost datagram."""
    ice_turn_tcp_after_s: float = 0.7
    """Then TURN is tried over TCP as well: one retransmission later, UDP is likely blocked."""
    ice_stun_after_turn_s: float = 0.6
    """What STUN has left once a TURN server has answered: where only TCP gets through, it never does."""
    ice_answer_s: float = 12.0
    """From our offer to the answer: both ways over relays, and the peer's own `ice_gather_s`."""
    ice_direct_s: float = 2.0
    """Checks between direct addresses alone, before TURN is used: three transmissions of each."""
    ice_checks_s: float = 9.0
    """All checks, TURN included: five transmissions of each."""
    quic_handshake_s: float = 5.0
    """A stream over the hole: two round trips, through TURN at their worst."""
    ice_close_s: float = 2.0
    """Giving an allocation back to a TURN server; then it has to find out by itself."""
    ice_offers_pause_s: float = 5.0
    """Between two offers that are answered of one peer: each costs datagrams to wherever it points. We offer no more
    often: after these and `ice_gather_s`, whatever the peer does."""

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

    better_path_min_s: float = 30.0
    """The first try of a better path while a worse one carries the link: it is up, so nothing is urgent."""
    first_hole_s: float = 1.0
    """The first try where hole punching is among them, and any when the peer comes back or a session with it begins:
    it had to wait for a link, and both sides are there now."""
    better_path_max_s: float = 600.0
    """The longest wait between such tries, before +-30 % jitter. A change of the network tries at once."""
    probe_timeout_s: float = 4.0
    """What a link that is in doubt has to answer one ping: a round trip over Tor, and a retransmission."""

    # Slots. Strangers can only ever fill these, never memory.
    inbound_slots: int = 64
    """Links that others opened: four groups of 15. Beyond it a cosigner still gets one, and a stranger goes."""
    outbound_slots: int = 16
    """Links that we opened, dials under way included: a group of 15. A cosigner gets one all the same."""
    lobby_slots: int = 1024
    """Inbound streams that have said nothing yet, or wait to be served. Each is a descriptor and a kilobyte. 10,000
    silent ones a second are each given 0.1 s, and whoever speaks is served within a second."""
    half_open_slots: int = 256
    """Inbound links whose handshake is under way: act two was sent, act three has 0.2 s to come at 1,250 strangers a
    second, which is half a core. Each is some 10 KiB."""
    half_open_per_prefix: int = 4
    """Of both from one IPv4 /32 or IPv6 /64, so that one host cannot hold them all."""
    links_per_peer: int = 4
    """Inbound links of one key: the one in use, one not yet known to be dead, and two of a simultaneous dial."""
    prefix_handshakes_per_s: float = 1.0
    """Handshakes from one prefix that do not end with a peer we let in (THREATS.md T1): those give their token back."""
    prefix_burst_handshakes: int = 5
    """The same at once: a wrong key typed a few times, or several people behind one router."""
    handshakes_share: float = 0.5
    """Of one processor's time that handshakes may take, from everywhere together (T1). A bad act one costs 0.15 ms,
    all of a handshake 0.6 ms. What does not fit waits in the lobby; nobody is turned away for it."""
    handshakes_burst_s: float = 0.005
    """The same at once: links that are up get their turn after it."""
    prefix_faults_max: int = 20
    """Failed handshakes of one prefix within ten minutes; then it is refused for a while (T12)."""
    accepts_per_wake: int = 64
    """Connections taken from the kernel per turn of the loop: links that are up get their turn in between."""
    listen_backlog: int = 1024
    """Connections that the kernel keeps meanwhile. Behind a full one a dialler's kernel tries again after 1, 3 and 7 s.
    The kernel may have a lower bound of its own (Linux: `net.core.somaxconn`, 4096)."""
    descriptors_share: float = 0.8
    """Of RLIMIT_NOFILE: beyond it whoever is least welcome in the lobby, then of the half-open ones, gives its own to a
    newer connection, so that journals and dials still get one."""

    # Bandwidth. What comes faster is not dropped: reading pauses, and it waits on the sender's side.
    peer_messages_per_s: float = 50.0
    """Messages from one peer: checking and answering one is 0.15 ms, so that 64 of them cost half a core."""
    peer_burst_messages: int = 200
    """The same at once: a resent backlog, or the messages of a few ceremonies."""
    peer_bytes_per_s: int = 1_000_000
    """Bytes from one peer: a PSBT of full size in half a second; some 3 % of a core."""
    peer_burst_bytes: int = 5 * MIB
    """The same at once: a message of full size, and others beside it."""
    total_messages_per_s: float = 1000.0
    """From all peers together: 15 % of a core. Who has used less than half of its own burst does not wait for this."""
    total_burst_messages: int = 4000
    """The same at once: three messages of each of 1,000 signers in a star, with room."""
    pace_burst_messages: int = 128
    """The same in one turn of the loop: 20 ms, in which nothing else gets its turn. Behind it each read brings one more
    message, and the rest of it waits 50 ms."""
    pace_messages_per_s: float = 1000.0
    """How fast those come back: slower than they are worked off, or a turn would never end."""
    total_bytes_per_s: int = 16_000_000
    """Bytes from all peers together: half a core, and more than a home has."""
    total_burst_bytes: int = 32 * MIB
    """The same at once: as much as is held of incomplete messages."""
    peer_send_bytes_per_s: int = 0
    """Bytes to one peer, for a line that others need too; 0: as fast as it takes them. A round does not wait for it."""
    total_send_bytes_per_s: int = 0
    """The same to all peers together."""
    slow_reader_messages: int = 12
    """Answers (pongs, acknowledgements) that wait for a peer that does not read; then nothing more is read from it."""
    slow_reader_max_bytes: int = 256 * KIB
    """The same in bytes; then it is dropped."""
    slow_reader_timeout_s: float = 30.0
    """How long a link may stay clogged before it is dropped. It has to take up to 140 KiB meanwhile: 38 kbit/s at most,
    less than Tor gives."""
    score_half_life_s: float = 3600.0
    """After which a peer's score is half of what it was: what is not repeated is forgotten within a day."""
    flood_s: float = 60.0
    """How long messages may come as fast as they are read, without a pause, before it counts as flooding."""

    # Memory.
    reassembly_max_bytes: int = REASSEMBLY_MAX_BYTES
    """Fragments held for incomplete messages in the whole node: eight of full size at once."""
    receive_window: int = 1024
    """Message ids remembered per sender and boot epoch, by arrival: of its application, and as many of what leaves at
    once. Within one row fewer overtake another one: a sender keeps at most `unacked_max` in the air."""
    epochs_per_sender: int = 4
    """Boot epochs whose windows are kept per sender: messages signed before a restart or two still arrive."""
    unacked_max: int = 512
    """Messages on their way to one peer and not yet acknowledged; then `send_message_to` waits."""
    unacked_max_bytes: int = 8 * MIB
    """The same in bytes: two messages of full size. One message is always allowed."""
    outbox_ttl_s: float = 7 * 86_400.0
    """How long a message is kept on disk for a peer that does not acknowledge it: a cosigner on holiday. Then it is
    dropped, and that is said."""
    outbox_max: int = 10_000
    """Messages kept on disk for one peer that is not connected; then sending to it is refused."""
    outbox_max_bytes: int = 64 * MIB
    """The same in bytes for all of them together: they are in memory too."""
    disk_waiting_max_bytes: int = 16 * MIB
    """Messages that wait for the disk; then reading pauses until half of them are there."""
    inbox_max: int = 64
    """Messages waiting for one peer's handler; then reading from that peer pauses."""
    write_chunk_bytes: int = 128 * KIB
    """Encrypted bytes handed to the socket ahead of what it took: what a late, urgent message still waits for."""
    write_buffer_bytes: int = 16 * KIB
    """Encrypted bytes that wait before a socket that takes none; then the link is clogged, and written to no more.
    Of answers that were written one by one they take more than twice as much: the event loop has a record of each."""
    peers_max: int = 4096
    """Keys in the book (THREATS.md T12)."""

    # Work.
    verify_batch: int = 16
    """Messages in one read from which a second thread takes half of the signatures. Below it, starting costs more."""
    log_lines_per_s: float = 1.0
    """Lines about refused strangers, faults and peers that come and go, in all. What was left out is counted."""
