// A server of the API with a little to tell, by hand: what the client is checked against.

const berta = { id: "berta", name: "Berta", vehicle: "bicycle" };
const problem = (status, title, more = {}) => Response.json({ title, ...more }, { status });

/** Return a server on a free port of this machine; `seen` holds what it was asked. */
export function serve(token) {
  const parcels = new Map();
  const seen = [];

  async function answer(request) {
    const url = new URL(request.url);
    const [kind, id, part] = url.pathname.split("/").slice(1).map(decodeURIComponent);
    seen.push({ method: request.method, url, headers: request.headers });
    if (kind === "depots") {
      if (id) return Response.json({ announced: parcels.size });
      return Response.json([{ id: "north", address: null, opens: { mon: ["8-12", "14-18"] } }]);
    }
    if (request.headers.get("authorization") !== `Bearer ${token}`) {
      return problem(401, "who are you?");
    }
    if (kind === "parcels" && !id && request.method === "POST") {
      const parcel = await request.json();
      if (parcel.grams <= 0) return problem(422, "invalid", { fields: { grams: "too light" } });
      const made = { ...parcel, id: `p/${parcels.size + 1}`, status: "announced", courier: null };
      parcels.set(made.id, made);
      return Response.json(made, { status: 201 });
    }
    if (kind === "parcels" && !id) {
      const all = [...parcels.values()];
      const from = Number(url.searchParams.get("cursor") ?? 0);
      const to = from + Number(url.searchParams.get("limit") ?? 10);
      return Response.json({
        items: all.slice(from, to),
        next: to < all.length ? String(to) : null,
      });
    }
    if (kind === "couriers") return Response.json(id ? berta : [berta]);
    if (kind === "webhooks" && !id) {
      return Response.json({ ...(await request.json()), id: 7 }, { status: 201 });
    }
    if (kind === "webhooks") return new Response(null, { status: 204 });
    const parcel = parcels.get(id);
    if (kind !== "parcels" || !parcel) return problem(404, `there is no ${id}`);
    if (part === "events") {
      return Response.json([
        { kind: "scanned", at: "2026-01-01T08:00:00Z", depot: "north" },
        { kind: "delayed", at: "2026-01-01T09:00:00Z", reason: "weather" },
      ]);
    }
    if (part === "courier") parcel.courier = berta;
    else if (request.method === "PATCH") Object.assign(parcel, await request.json());
    else if (request.method === "DELETE") parcels.delete(id);
    else return Response.json(parcel);
    return request.method === "PATCH" ? Response.json(parcel) : new Response(null, { status: 204 });
  }

  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, answer);
  return { base: `http://127.0.0.1:${server.addr.port}`, seen, stop: () => server.shutdown() };
}
