// What the program says: an answer is a value that can be sent now, or stored and sent again later.

// `body` is the text itself, so that a replay is the same bytes and not a new rendering.
export const jsonAnswer = (status, value) => ({
  status,
  mediaType: 'application/json',
  body: JSON.stringify(value),
  headers: {},
});

// RFC 9457.
export const problem = (status, title, headers = {}) => ({
  status,
  mediaType: 'application/problem+json',
  body: JSON.stringify({ title, status }),
  headers,
});

// A request that goes no further. Carries the answer, so that any depth of code can refuse.
export class Refused extends Error {
  constructor(status, title, headers) {
    super(title);
    this.answer = problem(status, title, headers);
  }
}
