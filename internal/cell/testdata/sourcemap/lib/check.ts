// The line numbers of this file are in a test.

type Total = number

export function check(total: Total): void {
  if (total < 0) {
    throw new RangeError(`total is ${total}`)
  }
}
