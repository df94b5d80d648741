// homepage returns an address as it is to be kept: complete, and without what tells where a visitor came from;
// null when it is none.
export function homepage(text: string): string | null {
  const url = URL.parse(text) ?? URL.parse(`https://${text}`);
  if (url === null || !url.protocol.startsWith("http")) return null;
  for (const name of [...url.searchParams.keys()]) {
    if (name.startsWith("utm_")) url.searchParams.delete(name);
  }
  url.hash = "";
  return url.href;
}
