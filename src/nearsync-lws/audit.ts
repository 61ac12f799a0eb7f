// What a stranger or a peer tried: one line each, the same names everywhere.

export type AuditEvent =
  | "invite opened"
  | "invite closed"
  | "pairing refused"
  | "peer paired"
  | "peer changed"
  | "peer removed"
  | "connection refused"
  | "message refused";

export interface AuditLine {
  event: AuditEvent;
  /** Address of the other end, where there is one. */
  from?: string | undefined;
  peer?: string | undefined;
  fingerprint?: string | undefined;
  reason?: string | undefined;
}

export type Audit = (line: AuditLine) => void;
