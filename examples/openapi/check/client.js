// Asks the server for everything that the client can.

import assert from "node:assert/strict";
import {
  ApiError,
  couriers,
  depots,
  Invalid,
  parcels,
  Problem,
  webhooks,
} from "../generated/index.js";
import { serve } from "./server.js";

const server = serve("secret");
const client = { base: server.base, token: "secret" };
const recipient = { name: "Ada", street: "Main St 1", city: "Turin", country: "IT" };
const once = () => ({ "Idempotency-Key": crypto.randomUUID() });

try {
  const first = await parcels.createParcel(client, once(), { recipient, grams: 250, note: null });
  assert.equal(first.status, "announced");
  assert.match(server.seen.at(-1).headers.get("idempotency-key"), /^[0-9a-f-]{36}$/);
  for (const grams of [1, 2]) await parcels.createParcel(client, once(), { recipient, grams });

  const { parcelId, ...all } = {
    parcelId: first.id,
    limit: 2,
    status: ["announced", "in_transit"],
  };
  const weights = await Array.fromAsync(parcels.everyParcel(client, all), (one) => one.grams);
  assert.deepEqual(weights, [250, 1, 2]);
  assert.deepEqual(server.seen.at(-1).url.searchParams.getAll("status"), all.status);

  await couriers.assignCourier(client, { parcelId }, { courier: "berta" });
  assert.equal((await couriers.getCourier(client, { courierId: "berta" })).name, "Berta");
  await parcels.updateParcel(client, { parcelId }, { note: "ring twice" });
  const parcel = await parcels.getParcel(client, { parcelId });
  assert.deepEqual([parcel.note, parcel.courier.vehicle], ["ring twice", "bicycle"]);
  assert.deepEqual(
    (await parcels.listEvents(client, { parcelId })).map((event) => event.kind),
    ["scanned", "delayed"],
  );

  const url = "https://shop.example/told";
  const { id } = await webhooks.createWebhook(client, { url, events: ["delivered"] });
  assert.equal(await webhooks.deleteWebhook(client, { webhookId: id }), undefined);
  assert.match(server.seen.at(-1).url.pathname, /webhooks\/7$/);

  assert.deepEqual(await depots.countStock(client, { depotId: "north" }), { announced: 3 });
  assert.equal((await depots.listDepots(client))[0].opens.mon.length, 2);
  assert.equal(server.seen.at(-1).headers.get("authorization"), null);

  assert.equal(await parcels.cancelParcel(client, { parcelId }), undefined);
  await assert.rejects(parcels.getParcel(client, { parcelId }), (error) => {
    assert(error instanceof Problem && error instanceof ApiError);
    assert.deepEqual([error.status, error.body.title], [404, "there is no p/1"]);
    return true;
  });
  await assert.rejects(parcels.createParcel(client, once(), { recipient, grams: 0 }), (error) => {
    assert(error instanceof Invalid);
    assert.deepEqual(error.body.fields, { grams: "too light" });
    return true;
  });
  await assert.rejects(couriers.listCouriers({ base: server.base }), {
    name: "Problem",
    status: 401,
  });
  console.log(`${server.seen.length} requests answered as they should be`);
} finally {
  await server.stop();
}
