// Every limit of what peers may send, hold or wait for, and how the limits relate.

/** From the first byte of a connection until its peer is known and has proved the session. */
export const HANDSHAKE_MS = 5000;
/** Connections, over all listeners, whose peer is not known yet; the next one is closed at once. */
export const UNAUTHENTICATED_MAX = 64;
/** Bytes of the HTTP request that asks for a WebSocket. */
export const HTTP_HEADER_BYTES_MAX = 4096;

/** An invite lives so long, takes so many wrong answers, and one right one. */
export const INVITE_MS = 10 * 60_000;
export const INVITE_TRIES_MAX = 5;
/** A message of the pairing. */
export const PAIRING_BYTES_MAX = 2048;

export const PEERS_MAX = 64;
export const ADDRESSES_MAX = 8;
export const ADDRESS_CHARACTERS_MAX = 255;

/** Of one control message, checked before it is decoded. */
export const DEPTH_MAX = 6;
export const ITEMS_MAX = 4096;

/** A message on the control socket. Nothing in one is longer than 64 KiB. */
export const CONTROL_BYTES_MAX = 64 * 1024;
/** What a replica is told of a group before it is made, opaque to TypeScript. */
export const DESCRIPTION_BYTES_MAX = 32 * 1024;
/** Groups that one message may speak of. */
export const GROUPS_MAX = 128;

/** A piece of a batch: what is re-sent at most of one after a break, apart from what is in flight. */
export const CHUNK_BYTES_MAX = 256 * 1024;
export const CURSOR_BYTES_MAX = 256;
/** What the engine is asked for, of a chunk before compression: its header and its last entry come on top. */
export const CHUNK_RAW_BYTES_MAX = 240_000;
/** Cuts of a group whose moment is remembered, so that nobody has to look it up. */
export const POINTS_REMEMBERED_MAX = 64;
export const CHUNK_HEADER_BYTES = 64;
export const BULK_BYTES_MAX = CHUNK_HEADER_BYTES + CURSOR_BYTES_MAX + CHUNK_BYTES_MAX;
/** Bytes of chunks that a receiver takes before it has staged them, for each group. */
export const CREDIT_BYTES = 4 * 2 ** 20;

/** Bytes that wait in this process for the control socket; a peer that reads so slowly is let go. */
export const CONTROL_BACKLOG_MAX = 4 * 2 ** 20;
/** Messages that may come before somebody reads them, during a handshake. */
export const HANDSHAKE_MESSAGES_MAX = 8;

/** Waits between two attempts to reach a peer: doubled each time, and drawn between half and all of it. */
export const RETRY_MS_MIN = 250;
export const RETRY_MS_MAX = 15_000;

/** A heartbeat is sent so often; a link on which none was answered for so long is down. */
export const BEAT_MS = 500;
export const BEAT_LOST_MS = 3000;

/** A cut is a flush of the owner's log: not more often, whatever the RPO. */
export const CUT_MS_MIN = 200;
/** Of a bandwidth limit that is low: smaller chunks would be headers mostly. */
export const CHUNK_BYTES_MIN = 16 * 1024;
/** Of a bandwidth limit: with less, a chunk would take longer than heartbeats are waited for. */
export const BANDWIDTH_MIN = 16 * 1024;
/** Others that are sent a group, as each is told. */
export const OTHERS_MAX = 16;
/** Batches under way to one follower that are not applied there. */
export const BATCHES_MAX = 2;
/** While heartbeats are answered and chunks do not arrive for so long, the bulk socket is dead without saying so. */
export const STALL_MS = 10_000;
/** Points in a row that went before their turn; after that it is the base that is missing, and no new cut helps. */
export const TARGETS_MISSED_MAX = 8;
/** Named points that wait for one follower; of more the oldest lose their names there, not their content. */
export const NAMED_MAX = 64;
/** A snapshot's name. */
export const POINT_NAME_CHARACTERS_MAX = 255;
/** At a planned change of owner writers wait for so long at most; then they go on, and it is over. */
export const FREEZE_MS = 2000;
/** The engine's gate opens by itself a little later, should nobody do it. */
export const GATE_MS = FREEZE_MS + 500;
/** A round of copying that took so long: what is left behind a closed gate takes no longer. */
export const LITTLE_MS = 250;
/** Rounds of copying, all together. */
export const COPY_MS_MAX = 600_000;
/** What was granted is granted again until it is taken. */
export const GRANT_RETRY_MS = 500;
/** Who has files open at the side that gave a group away reads on for so long; then it follows the new owner. */
export const LEAVE_MS = 10_000;
/** Who asked for a group asks again while nothing comes. */
export const REQUEST_RETRY_MS = 2000;
/** What programs changed through mappings is written back within this: with writers at work, and while they wait. */
export const WRITE_BACK_MS = 5000;
export const LAST_WRITE_BACK_MS = FREEZE_MS / 4;
/** A follower that could not go on (no space, say) is asked again after so long. */
export const OFFER_RETRY_MS = 5000;

/** A question to a peer (who owns a group, to be sent one) is given up after so long. */
export const ASK_MS = 30_000;
/** Questions of one peer that are being answered at a time; their sessions end at more. */
export const ASKS_MAX = 256;
/** Files that are named in what a former owner tells of what was lost, and bytes of a path. */
export const LOST_FILES_MAX = 20;
export const LOST_PATH_BYTES_MAX = 1024;
/** A step of a former owner's return that failed is tried again after so long. */
export const RETURN_RETRY_MS = 1000;
/** A frame of headers: what the engine takes as a limit, and what fits into a control message. */
export const HEADERS_BYTES_MIN = 512;
export const HEADERS_BYTES_MAX = 48 * 1024;
/** What is new is told after so long; where nothing was, it is looked for so often. */
export const HEADERS_EVERY_MS = 25;
export const HEADERS_IDLE_MS = 50;
/** Of a bandwidth limit. */
export const HEADERS_SHARE = 0.1;
/** Bytes of frames under way to one follower that it has not acknowledged. */
export const HEADERS_UNACKED_MAX = 256 * 1024;
/** Frames that a stream can be continued after, in another session. */
export const HEADERS_REMEMBERED_MAX = 64;
/** Bytes of frames of one group that a follower keeps; more are folded into one. */
export const HEADERS_KEPT_MAX = 1024 * 1024;
/** What the file of them may have beyond twice what is kept, before it is written anew. */
export const HEADERS_SLACK_BYTES = 256 * 1024;

/** A question of a proof, an answer to one, and what is told of a verification. */
export const PROOF_BYTES_MAX = 48 * 1024;
/** Recovery points that a peer compares here at the same time, and verifications that run here. */
export const PROOFS_MAX = 4;
/** A point that nobody asks about is let go after so long. */
export const PROOF_IDLE_MS = 120_000;
/** An answer is a piece of work of a second or so; one that does not come for so long does not come. */
export const ANSWER_MS = 120_000;
/** A verification waits so long for a session that ended. */
export const RESUME_MS = 60_000;
/** Differences that are listed; after so many, nobody needs more to know that a replica is another one. */
export const MISMATCHES_LISTED_MAX = 1000;
export const MISMATCHES_MAX = 10_000;
/** Keys that are sent again at once, in bytes; what else differs comes after it. */
export const MENDS_BYTES_MAX = 512 * 1024;
/** Ranges that are looked at again after that. */
export const SUSPECTS_MAX = 1024;
/** A repair of which nothing moves for so long is given up. */
export const MEND_MS = 300_000;

assertRelations();

/** How the limits hang together; checked when the module is loaded. */
function assertRelations(): void {
  const holds =
    DESCRIPTION_BYTES_MAX * 2 <= CONTROL_BYTES_MAX &&
    PAIRING_BYTES_MAX < 2 ** 16 &&
    BULK_BYTES_MAX <= CREDIT_BYTES / 8 &&
    CONTROL_BYTES_MAX * HANDSHAKE_MESSAGES_MAX < CONTROL_BACKLOG_MAX &&
    CHUNK_BYTES_MIN <= CHUNK_BYTES_MAX &&
    CHUNK_RAW_BYTES_MAX < CHUNK_BYTES_MAX &&
    BATCHES_MAX < POINTS_REMEMBERED_MAX &&
    PROOF_BYTES_MAX + 1024 <= CONTROL_BYTES_MAX &&
    PROOF_BYTES_MAX * PROOFS_MAX < CONTROL_BACKLOG_MAX &&
    ANSWER_MS <= PROOF_IDLE_MS &&
    MISMATCHES_LISTED_MAX <= MISMATCHES_MAX &&
    CUT_MS_MIN < BEAT_LOST_MS &&
    BEAT_MS * 4 <= BEAT_LOST_MS &&
    LOST_FILES_MAX * (LOST_PATH_BYTES_MAX + 256) <= CONTROL_BYTES_MAX &&
    LITTLE_MS + LAST_WRITE_BACK_MS < FREEZE_MS &&
    FREEZE_MS < GATE_MS &&
    BEAT_LOST_MS < STALL_MS &&
    HEADERS_BYTES_MAX + 1024 <= CONTROL_BYTES_MAX &&
    HEADERS_BYTES_MAX < HEADERS_UNACKED_MAX &&
    HEADERS_UNACKED_MAX + CONTROL_BYTES_MAX < CONTROL_BACKLOG_MAX &&
    HEADERS_EVERY_MS <= HEADERS_IDLE_MS &&
    HEADERS_UNACKED_MAX < HEADERS_KEPT_MAX;
  if (!holds) throw new Error("the limits of src/nearsync-lws/limits.ts contradict each other");
}
