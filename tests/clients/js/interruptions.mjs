// What becomes of a client whose streams are cut. Runs in Node and in a browser. Beside what the steps of the story need,
// the peer has `network` (network.mjs) and `alone`, which makes one request of its own, beside every stream.

import { answer, require, textOf } from './steps.mjs';

const WATCHED = 'test://watched-resource';
const COUNT = { steps: 5, delay_ms: 50 };

const watched = async (alone) => (await alone('resources/read', { uri: WATCHED })).contents[0].text;

export const interruptions = {
  // Every stream is cut in the middle of a call, and stays cut until everything has happened: progress, a result, and a
  // change of a resource. All of it arrives, in order and once.
  async answers_in_the_gap({ client, call, notices, network, alone, progressOnWire }) {
    await client.subscribeResource({ uri: WATCHED });
    progressOnWire.length = 0;
    let begun;
    const firstProgress = new Promise((resolve) => (begun = resolve));
    const counted = call('slow_count', COUNT, { onprogress: begun });
    await firstProgress;
    const { cut } = await network.hold();
    require(cut, 'there was no stream to cut');
    const before = await watched(alone);
    const changed = client.callTool({ name: 'test_trigger_resource_change', arguments: {} });
    while ((await watched(alone)) === before);
    // A count that began later and takes as long has ended: so has the one whose stream was cut.
    await alone('tools/call', { name: 'slow_count', arguments: COUNT });
    await network.release();
    require(textOf(await counted) === 'Counted to 5.', `the cut call said ${textOf(await counted)}`);
    require(!(await changed).isError, `the call made meanwhile said ${textOf(await changed)}`);
    const { method, uri } = await notices.next();
    require(method === 'notifications/resources/updated' && uri === WATCHED, `heard ${method} ${uri}`);
    const progress = progressOnWire.map((one) => one.progress).join();
    require(progress === '1,2,3,4,5', `progress was ${progress}`);
    await client.unsubscribeResource({ uri: WATCHED });
    return { cut, progress };
  },
  // The client is cut off in the middle of a call and the server does not notice: it goes on talking to nobody. When the
  // client is back, what was said to nobody arrives, in order and once.
  async cut_unnoticed({ client, call, notices, network, progressOnWire }) {
    await client.subscribeResource({ uri: WATCHED });
    progressOnWire.length = 0;
    let begun;
    const firstProgress = new Promise((resolve) => (begun = resolve));
    const counted = call('slow_count', COUNT, { onprogress: begun });
    await firstProgress;
    const { cut } = await network.part();
    require(cut, 'there was no stream to cut');
    require(textOf(await counted) === 'Counted to 5.', `the cut call said ${textOf(await counted)}`);
    const progress = progressOnWire.map((one) => one.progress).join();
    require(progress === '1,2,3,4,5', `progress was ${progress}`);
    await answer(client, 'test_trigger_resource_change');
    const { method, uri } = await notices.next();
    require(method === 'notifications/resources/updated' && uri === WATCHED, `heard ${method} ${uri}`);
    await client.unsubscribeResource({ uri: WATCHED });
    // Would the change have been told twice, the second would come before this.
    await answer(client, 'test_trigger_tool_change');
    const last = await notices.next();
    require(last.method === 'notifications/tools/list_changed', `heard ${last.method} once more`);
    return { cut, progress };
  },
};
