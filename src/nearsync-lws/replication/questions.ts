// What two peers ask each other about groups, beside the stream: who owns one now, to be sent one, and what was lost.
//
// - A question is answered once, or fails when its session ends, or after a while.
// - Who asks needs the role `read` for the group; who is told of a successor decides itself what to make of it.

import { HoldfastError } from "../../io-path/errors.js";
import type { ErrorCode } from "../../io-path/errors.js";
import { ASKS_MAX, ASK_MS } from "../limits.js";
import type { Successor } from "../machines/return.js";
import type { Role } from "../peers.js";
import type { Clock } from "../seams.js";
import type { Body, Message } from "../wire/control.js";
import type { Pipe } from "./pipe.js";

export interface SuccessorQuestion {
  /** The peer that asks, or is asked. */
  peer: string;
  group: string;
  epochId: string;
  lsn: number | null;
}

/** Somebody wants to be sent a group. */
export interface FollowRequest {
  peer: string;
  group: string;
  rpoMs: number;
  bytesPerSecond: number | null;
  rf: number;
}

/** What did a former owner do after one LSN, up to another (null: to the end)? */
export interface AccountQuestion {
  peer: string;
  group: string;
  epochId: string;
  above: number;
  until: number | null;
}

/** What it did. */
export type Account = Omit<Body<"accounted">, "ask">;

export interface QuestionsOptions {
  clock: Clock;
  authorize: (peer: string, role: Role, group: string) => void;
  succeededBy: (question: SuccessorQuestion) => Promise<Successor | null>;
  follow: (request: FollowRequest) => Promise<void>;
  accountOf: (question: AccountQuestion) => Promise<Account>;
}

export type QuestionMessage = Extract<
  Message,
  { type: "ask" | "successor" | "follow" | "follows" | "account" | "accounted" }
>;
type Answer = Extract<Message, { type: "successor" | "follows" | "accounted" }>;

interface Open {
  pipe: Pipe;
  resolve: (answer: Answer) => void;
  reject: (error: HoldfastError) => void;
  cancel: () => void;
}

/** Of a refusal, as the wire bounds it. */
const TEXT_CHARACTERS_MAX = 500;
const CODES: readonly string[] = ["Conflict", "Denied", "Invalid", "Fenced", "NotFound", "Unavailable"];

export class Questions {
  readonly #options: QuestionsOptions;
  readonly #open = new Map<number, Open>();
  #newest = 0;
  /** Questions of others that are being answered. */
  #serving = 0;

  constructor(options: QuestionsOptions) {
    this.#options = options;
  }

  /** `Unavailable`: the session ended, or no answer came. */
  async succeededBy(pipe: Pipe, { group, epochId, lsn }: SuccessorQuestion): Promise<Successor | null> {
    const answer = await this.#ask(pipe, (ask) => pipe.send("ask", { ask, group, epochId, lsn }));
    if (answer.type === "successor") return answer.body.successor;
    throw failureOf(answer);
  }

  /** Fails with what the peer says. */
  async account(pipe: Pipe, { group, epochId, above, until }: AccountQuestion): Promise<Account> {
    const answer = await this.#ask(pipe, (ask) =>
      pipe.send("account", { ask, group, epochId, above, until }),
    );
    if (answer.type !== "accounted") throw failureOf(answer);
    return answer.body;
  }

  /** Fails with what the peer says. */
  async follow(pipe: Pipe, { group, rpoMs, bytesPerSecond, rf }: FollowRequest): Promise<void> {
    const answer = await this.#ask(pipe, (ask) =>
      pipe.send("follow", { ask, group, rpoMs, bytesPerSecond, rf }),
    );
    if (answer.type !== "follows" || answer.body.code !== "") throw failureOf(answer);
  }

  #ask(pipe: Pipe, send: (ask: number) => void): Promise<Answer> {
    this.#newest += 1;
    const ask = this.#newest;
    return new Promise((resolve, reject) => {
      const late = () => this.#fail(ask, `no answer within ${ASK_MS / 1000} s`);
      this.#open.set(ask, { pipe, resolve, reject, cancel: this.#options.clock.after(ASK_MS, late) });
      send(ask);
    });
  }

  #fail(ask: number, why: string): void {
    const open = this.#open.get(ask);
    this.#open.delete(ask);
    open?.cancel();
    open?.reject(new HoldfastError("Unavailable", why));
  }

  /** The session is over. */
  down(pipe: Pipe): void {
    for (const [ask, open] of this.#open) {
      if (open.pipe === pipe) this.#fail(ask, "the session with the peer ended before it answered");
    }
  }

  take(peer: string, pipe: Pipe, message: QuestionMessage): void {
    switch (message.type) {
      case "ask":
        return this.#serve(pipe, message.body.ask, () => this.#answer(peer, pipe, message.body));
      case "follow":
        return this.#serve(pipe, message.body.ask, () => this.#take(peer, pipe, message.body));
      case "account":
        return this.#serve(pipe, message.body.ask, () => this.#account(peer, pipe, message.body));
      case "successor":
      case "accounted":
      case "follows": {
        const open = this.#open.get(message.body.ask);
        if (open?.pipe !== pipe) return;
        this.#open.delete(message.body.ask);
        open.cancel();
        return open.resolve(message);
      }
    }
  }

  #serve(pipe: Pipe, ask: number, run: () => Promise<void>): void {
    if (this.#serving >= ASKS_MAX) {
      throw new HoldfastError("Invalid", `more than ${ASKS_MAX} questions at a time`);
    }
    this.#serving += 1;
    const refuse = (error: unknown) => {
      const { code, message, hint } = error instanceof HoldfastError ? error : asFailure(error);
      const said = hint === "" ? message : `${message}; ${hint}`;
      pipe.send("follows", { ask, code, message: said.slice(0, TEXT_CHARACTERS_MAX) });
    };
    void run()
      .catch(refuse)
      .finally(() => {
        this.#serving -= 1;
      });
  }

  async #answer(peer: string, pipe: Pipe, { ask, group, epochId, lsn }: Body<"ask">): Promise<void> {
    this.#options.authorize(peer, "read", group);
    const successor = await this.#options.succeededBy({ peer, group, epochId, lsn });
    pipe.send("successor", { ask, successor });
  }

  async #take(peer: string, pipe: Pipe, { ask, ...wish }: Body<"follow">): Promise<void> {
    this.#options.authorize(peer, "read", wish.group);
    await this.#options.follow({ peer, ...wish });
    pipe.send("follows", { ask, code: "", message: "" });
  }

  async #account(peer: string, pipe: Pipe, { ask, ...question }: Body<"account">): Promise<void> {
    this.#options.authorize(peer, "read", question.group);
    pipe.send("accounted", { ask, ...(await this.#options.accountOf({ peer, ...question })) });
  }
}

function asFailure(error: unknown): HoldfastError {
  return new HoldfastError("Internal", error instanceof Error ? error.message : String(error));
}

/** An answer that is none to what was asked. */
function failureOf(answer: Answer): HoldfastError {
  if (answer.type !== "follows")
    return new HoldfastError("Invalid", `${answer.type} does not answer the question`);
  const { code, message } = answer.body;
  return new HoldfastError(CODES.includes(code) ? (code as ErrorCode) : "Unavailable", message);
}
