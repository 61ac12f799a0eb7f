// Headers of other sites' groups, as they came, on this site's disk: one append-only file a group.
//
//   file   = record*
//   record = bytes u32 | CRC-32 of what follows u32 | kind u8 | body          little-endian; `bytes`: of kind and body
//   1 FRAME   a frame of the stream, as the engine made it
//   2 BEAT    newest u64 | timeNs i64                what the owner had when it looked last
//   3 MARK    lsn u64 | chain u64                    the stream goes on after this
//
// - A frame counts when it is durable: one fdatasync for all that came meanwhile. A beat only says until when nothing
//   is unknown, so it is written and not waited for.
// - A record that is torn ends the file: half a frame is none.
// - A frame continues one that came before (its LSN, its chain), mostly the newest, or begins a stream: what it speaks
//   of, and what is later, is forgotten. Anything else is refused.
// - What the replica has as a recovery point is dropped. The file is written anew (beside it, fdatasync, rename, fsync
//   of the folder) when it is mostly that; when what is kept is too much, it is folded into one summary.

import { open, readFile, rename, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { HoldfastError } from "../io-path/errors.js";
import { checkHeaders, foldHeaders, headersStart } from "../io-path/headers.js";
import type { HeaderFrame } from "../io-path/headers.js";
import { HEADERS_KEPT_MAX, HEADERS_REMEMBERED_MAX, HEADERS_SLACK_BYTES } from "./limits.js";
import type { HeaderMark } from "./machines/headers.js";

/** What an owner had, and when it looked. */
export interface Beat {
  newest: number;
  timeNs: bigint;
}

/** What is known of an owner beyond its recovery points. */
export interface KnownHeaders {
  /** Of the newest frame that is durable; null: none came. */
  mark: HeaderMark | null;
  frames: Uint8Array[];
  beat: Beat | null;
}

interface Kept {
  first: number;
  last: number;
  bytes: Buffer;
}

const FRAME = 1;
const BEAT = 2;
const MARK = 3;
const HEAD_BYTES = 9;
const RECORD_BYTES_MAX = 128 * 1024;

/** As a mark has it. */
export function chainText(chain: bigint): string {
  return chain.toString(16).padStart(16, "0");
}

export class HeaderStore {
  readonly #folder: string;
  readonly #files = new Map<string, Promise<HeaderFile>>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** `group`: 32 hexadecimal digits. */
  async of(group: string): Promise<HeaderFile> {
    const there = this.#files.get(group);
    if (there !== undefined) return await there;
    const opened = HeaderFile.open(this.#folder, `headers-${group}`);
    this.#files.set(group, opened);
    opened.catch(() => this.#files.delete(group));
    return await opened;
  }

  async close(): Promise<void> {
    const files = await Promise.allSettled([...this.#files.values()]);
    this.#files.clear();
    for (const file of files) if (file.status === "fulfilled") await file.value.close();
  }
}

export class HeaderFile {
  readonly #folder: string;
  readonly #name: string;
  #file: FileHandle;
  #fileBytes: number;
  #frames: Kept[] = [];
  /** Where frames ended, the newest last. */
  #marks: HeaderMark[] = [];
  #beat: Beat | null = null;
  /** Up to there the replica has a recovery point. */
  #released = 0;
  /** Records that are not written yet. */
  #pending: Buffer[] = [];
  #wantsSync = false;
  /** Of what is pending, and of what was before. */
  #turn: Promise<void> | undefined;
  #failed: Error | undefined;

  private constructor(folder: string, name: string, { file, bytes }: { file: FileHandle; bytes: Buffer }) {
    [this.#folder, this.#name, this.#file] = [folder, name, file];
    this.#fileBytes = this.#read(bytes);
  }

  static async open(folder: string, name: string): Promise<HeaderFile> {
    const path = join(folder, name);
    await rm(`${path}.new`, { force: true });
    const file = await open(path, "a+", 0o600);
    const bytes = await readFile(file);
    const opened = new HeaderFile(folder, name, { file, bytes });
    if (opened.#fileBytes < bytes.length) await file.truncate(opened.#fileBytes);
    return opened;
  }

  get mark(): HeaderMark | null {
    return this.#mark;
  }

  get #mark(): HeaderMark | null {
    return this.#marks.at(-1) ?? null;
  }

  known(): KnownHeaders {
    return { mark: this.#mark, frames: this.#frames.map(({ bytes }) => bytes), beat: this.#beat };
  }

  /** Fulfils with where the stream stands when they are durable. `Conflict`: one does not continue what is here. */
  async keep(frames: readonly Uint8Array[], lineage: bigint): Promise<HeaderMark | null> {
    if (this.#failed !== undefined) throw this.#failed;
    for (const frame of frames) {
      const told = checkHeaders(frame);
      if (told.lineage !== lineage) throw new HoldfastError("Conflict", "headers of another epoch");
      this.#requirePlace(told);
      const bytes = Buffer.from(frame);
      this.#append(FRAME, bytes);
      this.#add(told, bytes);
    }
    const mark = this.#mark;
    this.#wantsSync = true;
    await this.#written();
    return mark;
  }

  #requirePlace({ first, previous, lineage }: HeaderFrame): void {
    const [lsn, chain] = [Number(first) - 1, chainText(previous)];
    const continues = this.#marks.some((mark) => mark.lsn === lsn && mark.chain === chain);
    if (continues || previous === headersStart(lineage, first)) return;
    throw new HoldfastError(
      "Conflict",
      `headers from LSN ${first} on do not continue what is here, which ends at ${this.#mark?.lsn ?? "nothing"}`,
    );
  }

  #add(told: HeaderFrame, bytes: Buffer): void {
    const [first, last] = [Number(told.first), Number(told.last)];
    this.#frames = this.#frames.filter((frame) => frame.last < first);
    if (last > this.#released) this.#frames.push({ first, last, bytes });
    const before = this.#marks.filter(({ lsn }) => lsn < first);
    this.#marks = [...before, { lsn: last, chain: chainText(told.chain) }].slice(-HEADERS_REMEMBERED_MAX);
  }

  /** It is written when something else is, or soon. */
  beat(beat: Beat): void {
    if (this.#failed !== undefined) return;
    this.#beat = beat;
    this.#append(BEAT, beatBytes(beat));
    void this.#written().catch(() => undefined);
  }

  /** The replica shows everything up to there. */
  release(lsn: number): void {
    this.#released = Math.max(this.#released, lsn);
    this.#frames = this.#frames.filter(({ last }) => last > this.#released);
  }

  async close(): Promise<void> {
    await this.#turn?.catch(() => undefined);
    await this.#file.close();
  }

  #append(kind: number, body: Buffer): void {
    this.#pending.push(record(kind, body));
  }

  /** Fulfils when all that is pending now is written, and durable where somebody waits for that. */
  #written(): Promise<void> {
    this.#turn ??= this.#writeAll().finally(() => (this.#turn = undefined));
    return this.#turn;
  }

  async #writeAll(): Promise<void> {
    try {
      while (this.#pending.length > 0) {
        const [bytes, syncs] = [Buffer.concat(this.#pending), this.#wantsSync];
        [this.#pending, this.#wantsSync] = [[], false];
        await this.#file.appendFile(bytes);
        if (syncs) await this.#file.datasync();
        this.#fileBytes += bytes.length;
        await this.#tidy();
      }
    } catch (error) {
      // After a failed flush nothing that follows it would count.
      this.#failed = error as Error;
      throw error;
    }
  }

  async #tidy(): Promise<void> {
    const kept = () => this.#frames.reduce((sum, { bytes }) => sum + bytes.length, 0);
    const folds = kept() > HEADERS_KEPT_MAX;
    if (folds) {
      const frames = [...this.#frames];
      const folded = await foldHeaders(
        BigInt(this.#released),
        frames.map(({ bytes }) => bytes),
      );
      const since = this.#frames.slice(frames.length);
      const last = frames.at(-1)?.last ?? 0;
      // Unless a stream began anew meanwhile.
      if (folded !== null && this.#frames[0] === frames[0] && this.#frames.includes(frames.at(-1) as Kept)) {
        this.#frames = [{ first: this.#released + 1, last, bytes: Buffer.from(folded.bytes) }, ...since];
      }
    }
    if (folds || this.#fileBytes > 2 * kept() + HEADERS_SLACK_BYTES) await this.#rewrite();
  }

  async #rewrite(): Promise<void> {
    const path = join(this.#folder, this.#name);
    // All of this in one turn of the loop: what comes later waits in `pending` for the new file.
    const parts = this.#frames.map(({ bytes }) => record(FRAME, bytes));
    // Behind a folded frame the stream goes on where it was.
    if (this.#mark !== null) parts.push(record(MARK, markBytes(this.#mark)));
    if (this.#beat !== null) parts.push(record(BEAT, beatBytes(this.#beat)));
    this.#pending = [];
    const bytes = Buffer.concat(parts);
    const file = await open(`${path}.new`, "ax", 0o600);
    await file.appendFile(bytes);
    await file.datasync();
    await rename(`${path}.new`, path);
    const folder = await open(this.#folder, "r");
    await folder.sync().finally(() => folder.close());
    await this.#file.close();
    [this.#file, this.#fileBytes] = [file, bytes.length];
  }

  /** Bytes of the records that are whole. */
  #read(file: Buffer): number {
    let at = 0;
    while (at + HEAD_BYTES <= file.length) {
      const bytes = file.readUInt32LE(at);
      const end = at + 8 + bytes;
      if (bytes < 1 || bytes > RECORD_BYTES_MAX || end > file.length) break;
      const content = file.subarray(at + 8, end);
      if (crc32(content) !== file.readUInt32LE(at + 4)) break;
      this.#replay(content.readUInt8(0), content.subarray(1));
      at = end;
    }
    return at;
  }

  #replay(kind: number, body: Buffer): void {
    if (kind === BEAT) {
      this.#beat = { newest: Number(body.readBigUInt64LE(0)), timeNs: body.readBigInt64LE(8) };
      return;
    }
    if (kind === MARK) {
      this.#marks = [{ lsn: Number(body.readBigUInt64LE(0)), chain: chainText(body.readBigUInt64LE(8)) }];
      return;
    }
    this.#add(checkHeaders(body), Buffer.from(body));
  }
}

function record(kind: number, body: Buffer): Buffer {
  const content = Buffer.concat([Buffer.from([kind]), body]);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(content.length, 0);
  head.writeUInt32LE(crc32(content), 4);
  return Buffer.concat([head, content]);
}

function markBytes({ lsn, chain }: HeaderMark): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(lsn), 0);
  bytes.writeBigUInt64LE(BigInt(`0x${chain}`), 8);
  return bytes;
}

function beatBytes({ newest, timeNs }: Beat): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(newest), 0);
  bytes.writeBigInt64LE(timeNs, 8);
  return bytes;
}
