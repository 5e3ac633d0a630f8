// A few routes in JavaScript, with what the web platform has: Request, Response, URL, streams.

const routes = {
  '/': () => new Response('Hello from JavaScript in a microVM!\n'),
  '/time': () => Response.json({ now: new Date().toISOString() }),
  '/echo': (request) => new Response(request.body, { headers: { 'content-type': 'application/octet-stream' } }),
};

async function answer(request) {
  const { pathname } = new URL(request.url);
  console.log(`${request.method} ${pathname}`);
  const route = Object.hasOwn(routes, pathname) ? routes[pathname] : undefined;
  if (!route) return Response.json({ status: 404, detail: `try ${Object.keys(routes).join(' ')}` }, { status: 404 });
  return route(request);
}

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));
