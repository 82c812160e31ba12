/**
 * Who started a session: OpenCode knows it, and it never changes, so it is asked once.
 *
 * A question that fails or takes too long is answered "nobody" and asked again with the next call: a
 * call to a model never waits for more than that, and never fails by it.
 */

/** Sessions remembered; the oldest goes first and is merely asked for again. */
export const MAX_SESSIONS = 1_000
export const PATIENCE_MS = 2_000

/** The parent's id; undefined for a session without one. May reject. */
export type Ask = (session: string) => Promise<string | undefined>

export class Parents {
  readonly #ask: Ask
  readonly #patience_ms: number
  readonly #known = new Map<string, Promise<string | undefined>>()

  constructor(ask: Ask, patience_ms: number = PATIENCE_MS) {
    this.#ask = ask
    this.#patience_ms = patience_ms
  }

  /** The session's parent as far as OpenCode says so in time; never rejects. */
  async of(session: string): Promise<string | undefined> {
    const asked = this.#known.get(session) ?? this.#remember(session)
    try {
      return await within(asked, this.#patience_ms)
    } catch {
      if (this.#known.get(session) === asked) this.#known.delete(session)
      return undefined
    }
  }

  #remember(session: string): Promise<string | undefined> {
    const asked = Promise.resolve().then(() => this.#ask(session))
    this.#known.set(session, asked)
    if (this.#known.size > MAX_SESSIONS) {
      const oldest = this.#known.keys().next()
      if (!oldest.done) this.#known.delete(oldest.value)
    }
    return asked
  }
}

function within<T>(asked: Promise<T>, patience_ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no answer in time")), patience_ms)
    const settle = () => clearTimeout(timer)
    asked.then(resolve, reject).finally(settle)
  })
}
