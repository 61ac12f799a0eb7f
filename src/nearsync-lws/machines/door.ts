// What the machines need of the engine. The addon has it behind src/io-path; the simulation has a model of it.
//
// Owner's side, of a group that it owns:
//   cut        a recovery point at the newest LSN, durable (the log is flushed); where nothing changed since the last
//              one, that LSN again with the present's times
//   deltaOpen  begins to read what differs between `base` (null: everything) and `target`, after `cursor` (null: from
//              the start); tells both points, where their times are known. `NotFound`: base or target is not kept any
//              more, or the cursor is of another delta. `Conflict`: base is not in this group's history. After the
//              cursor that its last chunk told, where everything is staged already: one empty last chunk follows
//   deltaNext  the next chunk, at most `bytesMax`, and where to go on after it; `done`: it was the last
//   follow     what a difference from `lsn` on needs is kept for the follower, and `lsn` itself; what only it needed
//              before may go; an older LSN than the last one changes nothing; `ifNone`: nor does any other.
//              Null: it follows no more
//
//   headers    the next frame of the group's header stream: from an LSN on, continuing the frame with this chain (null:
//              a stream begins); null: nothing is new, or nothing that can be told yet. It may be ahead of what is
//              durable
//
// Replica's side:
//   replicaCreate  makes the replica of a group of this peer from the owner's description; there already: nothing
//   replicaState   what is there, durably; `headers`: where the newest frame that was kept ends
//   headersKeep    keeps frames of the owner's header stream, in order: durable when this is answered. `Conflict`: one
//                  neither continues what is here nor begins a stream
//   headersBeat    the owner had this LSN when it looked
//   stage      keeps a chunk beside what readers see, with the cursor after it; a chunk of another batch first drops
//              what was staged; an empty one changes nothing. It may be durable later only: `replicaState` tells
//              the newest durable cursor
//   commit     what was staged becomes the recovery point `target`, as a whole, and is flushed: readers see it when
//              this is answered, and a power cut takes it back no more. A commit that was done is answered at once
//
// `Fenced`: the epoch is older than one that is known. `NoSpace`: it may go later.

import type { ErrorCode } from "../../io-path/errors.js";
import type { HeaderMark } from "./headers.js";

/** A recovery point and when it was cut, by both of the owner's clocks. */
export interface Point {
  lsn: number;
  /** The snapshot that it is; empty: none. */
  name: string;
  timeNs: bigint;
  bootNs: bigint;
}

/** What the replica has staged of a batch that is not committed. Cursors are hexadecimal here. */
export interface Staging {
  base: number | null;
  target: number;
  cursor: string;
}

export type DoorCall =
  | { call: "cut"; group: string }
  | { call: "deltaOpen"; group: string; base: number | null; target: number; cursor: string | null }
  | { call: "deltaNext"; group: string; delta: number; bytesMax: number }
  | { call: "deltaClose"; group: string; delta: number }
  | { call: "follow"; group: string; follower: string; lsn: number | null; ifNone: boolean }
  | { call: "replicaCreate"; group: string; peer: string; description: Uint8Array }
  | { call: "replicaState"; group: string }
  | {
      call: "headers";
      group: string;
      from: number;
      chain: string | null;
      bytesMax: number;
      summarize: boolean;
    }
  | { call: "headersKeep"; group: string; epochId: string; frames: Uint8Array[] }
  | { call: "headersBeat"; group: string; newest: number; timeNs: bigint }
  | {
      call: "stage";
      group: string;
      epochId: string;
      base: number | null;
      target: number;
      chunk: Uint8Array;
      cursor: string;
    }
  | { call: "commit"; group: string; epochId: string; base: number | null; target: Point };

export interface DoorAnswers {
  cut: Point;
  deltaOpen: { delta: number; base: Point | null; target: Point };
  deltaNext: { chunk: Uint8Array; cursor: string; done: boolean };
  deltaClose: null;
  follow: null;
  replicaCreate: null;
  replicaState: {
    epochId: string | null;
    last: number | null;
    staging: Staging | null;
    headers: HeaderMark | null;
  };
  /** `newest`: the group's newest LSN. */
  headers: { newest: number; frame: { bytes: Uint8Array; last: number; chain: string } | null };
  headersKeep: HeaderMark | null;
  headersBeat: null;
  stage: null;
  commit: null;
}

export type DoorAnswer<C extends DoorCall["call"]> =
  { ok: true; value: DoorAnswers[C] } | { ok: false; code: ErrorCode; message: string };

/** Carries out a call and answers once, later (never before it returns). */
export type DoorPort = <C extends DoorCall["call"]>(
  call: Extract<DoorCall, { call: C }>,
  done: (answer: DoorAnswer<C>) => void,
) => void;

/** The same as promises, which is how src/io-path has it; a failure is a rejection. */
export type Door = <C extends DoorCall["call"]>(
  call: Extract<DoorCall, { call: C }>,
) => Promise<DoorAnswers[C]>;
