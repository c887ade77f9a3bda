// The two sides of a client that the server talks to of its own accord: who answers its questions, and what is heard.
// Runs in Node and in a browser.

// Who sits in front of the client: answers what the server asks, and remembers what it was asked.
export class Respondent {
  static fields = { username: 'story', email: 'story@example.test', name: 'Ada', color: 'blue', ok: true };
  static sample = 'Paris';
  static root = 'file:///srv/story';
  accepts = true;
  asked = [];
  // What happens between the question and its answer.
  meanwhile = async () => {};

  // By method, so that a client can be made to ask this respondent.
  answers = {
    'sampling/createMessage': ({ messages: [{ content }] }) => {
      this.asked.push((Array.isArray(content) ? content[0] : content).text);
      return { role: 'assistant', model: 'story', content: { type: 'text', text: Respondent.sample } };
    },
    'roots/list': () => ({ roots: [{ uri: Respondent.root, name: 'story' }] }),
    'elicitation/create': async ({ message, requestedSchema }) => {
      this.asked.push(message);
      await this.meanwhile();
      if (!this.accepts) return { action: 'decline' };
      const names = Object.keys(requestedSchema.properties);
      return { action: 'accept', content: Object.fromEntries(names.map((name) => [name, Respondent.fields[name]])) };
    },
  };
}

// What the server said of its own accord, in order.
export class Notices {
  static heard = ['notifications/resources/updated', 'notifications/tools/list_changed'];
  #waiting = [];
  #kept = [];

  hear({ method, params }) {
    const notice = { method, uri: params?.uri };
    const waiter = this.#waiting.shift();
    if (waiter) waiter(notice);
    else this.#kept.push(notice);
  }

  next() {
    if (this.#kept.length) return Promise.resolve(this.#kept.shift());
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
