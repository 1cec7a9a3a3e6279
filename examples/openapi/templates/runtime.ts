/** Where the API is, and as whom to ask it. */
export interface Client {
  base: string;
  token?: string;
  fetch?: typeof fetch;
}

/** Thrown where an answer tells of no success. */
export class ApiError<Body = unknown> extends Error {
  constructor(readonly status: number, readonly body: Body) {
    super(`the answer is ${status}`);
    this.name = new.target.name;
  }
}

interface Request {
  query?: Record<string, unknown>;
  headers?: Record<string, string | undefined>;
  body?: unknown;
  anonymous?: boolean;
  /** What to throw, by status or "default". */
  // deno-lint-ignore no-explicit-any
  errors: Record<string, new (status: number, body: any) => ApiError<any>>;
}

export async function request<Result>(
  client: Client,
  method: string,
  path: string,
  { query = {}, headers = {}, body, anonymous = false, errors }: Request,
): Promise<Result> {
  const url = new URL(client.base + path);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) {
      if (one !== undefined) url.searchParams.append(name, String(one));
    }
  }
  const sent = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) sent.set(name, value);
  }
  if (client.token && !anonymous) sent.set("authorization", `Bearer ${client.token}`);
  if (body !== undefined) sent.set("content-type", "application/json");
  const response = await (client.fetch ?? fetch)(url, {
    method,
    headers: sent,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  if (response.ok) return (text ? JSON.parse(text) : undefined) as Result;
  const known = errors[response.status] ?? errors.default ?? ApiError;
  throw new known(response.status, text ? JSON.parse(text) : undefined);
}
