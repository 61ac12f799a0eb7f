// The one door to the native addon: no other file imports it. Failures come as data and are thrown here, once.

import * as native from "#native";
import type { Failure } from "#native";
import { HoldfastError } from "./errors.js";

export { native };
export type {
  DriveSpec,
  MountOptions,
  PeerCredentials,
  PoolIdentity,
  PoolOptions,
  VolumeCreate,
} from "#native";

/** The value of an answer, or its failure thrown. */
export function unwrap<T>(answer: T | Failure): T {
  if (typeof answer === "object" && answer !== null && "failure" in answer) {
    throw new HoldfastError(answer.failure, answer.message);
  }
  return answer;
}

/** Bytes and log positions leave the door as `number`: exact below 2^53 (9 PB), as JSON carries them. */
export function exact(value: bigint): number {
  return Number(value);
}
