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
