// What becomes of a client whose streams are cut. Runs in Node and in a browser. Beside what the steps of the story
// need, the peer has `network` (network.mjs) and `alone`, which makes one request of its own, beside every stream.

import { Respondent } from './respondent.mjs';
import { answer, require, textOf } from './steps.mjs';

const WATCHED = 'test://watched-resource';
const COUNT = { steps: 5, delay_ms: 50 };

const watched = async (alone) => (await alone('resources/read', { uri: WATCHED })).contents[0].text;

// Starts to count, cuts every stream after the first number, and sees the rest of the count arrive, in order and once.
async function cutWhileCounting({ call, progressOnWire }, cutAll, goOn) {
  progressOnWire.length = 0;
  let begun;
  const firstProgress = new Promise((resolve) => (begun = resolve));
  const counted = call('slow_count', COUNT, { onprogress: begun });
  await firstProgress;
  const { cut } = await cutAll();
  await goOn?.();
  const text = textOf(await counted);
  require(text === 'Counted to 5.', `the cut call said ${text}`);
  const progress = progressOnWire.map((one) => one.progress).join();
  require(progress === '1,2,3,4,5', `progress was ${progress}`);
  return { cut, progress };
}

async function heardChange({ notices }) {
  const { method, uri } = await notices.next();
  require(method === 'notifications/resources/updated' && uri === WATCHED, `heard ${method} ${uri}`);
}

// Nothing more was told of the resource: it would come before this.
async function heardOnce({ client, notices }) {
  await client.unsubscribeResource({ uri: WATCHED });
  await answer(client, 'test_trigger_tool_change');
  const { method } = await notices.next();
  require(method === 'notifications/tools/list_changed', `heard ${method} once more`);
}

export const interruptions = {
  // Every stream is cut in the middle of a call, and stays cut until the call has ended.
  answers_in_the_gap(peer) {
    const { network, alone } = peer;
    return cutWhileCounting(
      peer,
      () => network.hold(),
      async () => {
        // A count that began later and takes as long has ended: so has the one whose stream was cut.
        await alone('tools/call', { name: 'slow_count', arguments: COUNT });
        await network.release();
      },
    );
  },
  // Every stream is cut while the user thinks, and stays cut until the answer is given.
  async question_in_the_gap({ client, respondent, canElicit, network }) {
    if (!canElicit) return { skipped: 'this SDK has no elicitation' };
    respondent.accepts = true;
    const cut = new Promise((resolve, reject) => {
      respondent.meanwhile = () => network.hold().then(resolve, reject);
    });
    const told = answer(client, 'test_input_required_result_elicitation');
    await cut;
    respondent.meanwhile = async () => {};
    await network.release();
    require((await told) === `Hello, ${Respondent.fields.name}!`, `the tool made of the answer: ${await told}`);
    return cut;
  },
  // Every stream is cut, and stays cut until a resource has changed.
  async notices_in_the_gap(peer) {
    const { client, network, alone } = peer;
    await client.subscribeResource({ uri: WATCHED });
    const { cut } = await network.hold();
      const before = await watched(alone);
    const changed = answer(client, 'test_trigger_resource_change');
    while ((await watched(alone)) === before);
    await network.release();
    await changed;
    await heardChange(peer);
    await heardOnce(peer);
    return { cut };
  },
  // The client is cut off in the middle of a call and the server does not notice: it goes on talking to nobody. When
  // the client is back, it hears all of that.
  async cut_unnoticed(peer) {
    const { client, network, cannot } = peer;
    await client.subscribeResource({ uri: WATCHED });
    const facts = await cutWhileCounting(peer, () => network.part());
    if (cannot.notices_in_the_gap) return { ...facts, notices: 'none, as before' };
    await answer(client, 'test_trigger_resource_change');
    await heardChange(peer);
    await heardOnce(peer);
    return facts;
  },
};
