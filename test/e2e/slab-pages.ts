// The 4 KiB pages of a drive's slab files, as somebody sees them who damages or looks after a stopped drive. Test data
// is made of pages that say which they are, so that they are found again on a drive whatever placed them there.

import { closeSync, openSync, readSync, readdirSync, writeSync } from "node:fs";
import { join } from "node:path";

export const PAGE = 4096;
const CHUNK_PAGES = 1024;

export interface PageAddress {
  file: string;
  offset: number;
}

/** A page of test data: `mark`, file and number at its start, and bytes that depend on them after it. */
export function makePage(mark: string, file: number, number: number): Buffer {
  const page = Buffer.alloc(PAGE, `${mark} ${file} ${number} `);
  page.writeUInt32LE(file * 65_537 + number, PAGE - 4);
  return page;
}

/** Calls `visit` for every page of a drive that is not all zero. The page is valid during the call only. */
export function forEachPage(drive: string, visit: (address: PageAddress, page: Buffer) => void): void {
  const chunk = Buffer.alloc(CHUNK_PAGES * PAGE);
  const zero = Buffer.alloc(PAGE);
  for (const name of readdirSync(drive).filter((found) => found.startsWith("slab-"))) {
    const file = join(drive, name);
    const fd = openSync(file, "r");
    try {
      for (let at = 0, got = 0; (got = readSync(fd, chunk, 0, chunk.length, at)) > 0; at += got) {
        for (let begin = 0; begin < got; begin += PAGE) {
          const page = chunk.subarray(begin, begin + PAGE);
          if (!page.equals(zero)) visit({ file, offset: at + begin }, page);
        }
      }
    } finally {
      closeSync(fd);
    }
  }
}

/** Turns one bit of a page around. Twice is as before. */
export function flipBit({ file, offset }: PageAddress, byte: number): void {
  const fd = openSync(file, "r+");
  try {
    const one = Buffer.alloc(1);
    readSync(fd, one, 0, 1, offset + byte);
    one.writeUInt8(one.readUInt8() ^ 0x10);
    writeSync(fd, one, 0, 1, offset + byte);
  } finally {
    closeSync(fd);
  }
}

export function readPage({ file, offset }: PageAddress): Buffer {
  const fd = openSync(file, "r");
  try {
    const page = Buffer.alloc(PAGE);
    readSync(fd, page, 0, PAGE, offset);
    return page;
  } finally {
    closeSync(fd);
  }
}
