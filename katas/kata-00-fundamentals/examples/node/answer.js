// What the program says.

export const jsonAnswer = (status, value) => ({
  status,
  mediaType: 'application/json',
  body: JSON.stringify(value),
});

// RFC 9457.
export const problem = (status, title) => ({
  status,
  mediaType: 'application/problem+json',
  body: JSON.stringify({ title, status }),
});

// A request that goes no further. Carries the answer, so that any depth of code can refuse.
export class Refused extends Error {
  constructor(status, title) {
    super(title);
    this.answer = problem(status, title);
  }
}
