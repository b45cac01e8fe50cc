// How figures and events are said to a person. Pure functions of plain data.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => number.format(value);
export const moment = (seconds) => new Date(seconds * 1000).toLocaleString("en-GB");
export const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
export const short = (id) => (id && id.length > 13 ? `${id.slice(0, 8)}…` : (id ?? "–"));

function scaled(value, unit, steps) {
  for (const [scale, prefix] of steps) {
    if (Math.abs(value) >= scale) return [(value / scale).toPrecision(3), `${prefix}${unit}`];
  }
  return [number.format(value), unit];
}
const DECIMAL = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
const plain = (text) => (text.includes("e") ? String(Number(text)) : text);

export const bitParts = (value) => scaled(value, "bit", DECIMAL).map(plain);
export const bits = (value) => bitParts(value).join(" ");
export const bytes = (value) => scaled(value, "B", DECIMAL).map(plain).join(" ");
export const ratio = (value) => (value == null ? "–" : `${(100 * value).toFixed(2)} %`);

export function span(seconds) {
  if (seconds == null) return "–";
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const protection = {
  hybrid: "hybrid (QKD and ML-KEM)", qkd: "QKD", pqc: "ML-KEM", classical: "classical", none: "none",
};

const keys = (f) => (f.keys === 1 ? "One key" : `${count(f.keys ?? 0)} keys`);

const SAYINGS = {
  "link.up": (f) => `Link ${f.link} is up`,
  "link.down": (f) => `Link ${f.link} is down`,
  "link.block_rejected": (f) => `Link ${f.link}: the modules refused a block`,
  "link.attack": (f) => `Link ${f.link ?? ""} is attacked: ${f.cause ?? "unknown"}`,
  "link.degraded": (f) => `Link ${f.link ?? ""} is worse than usual: ${f.cause ?? "unknown"}`,
  "link.normal": (f) => `Link ${f.link ?? ""} is as usual again`,
  "block.refused": () => "A delivered block was refused",
  "block.quarantined": (f) => `${f.blocks === 1 ? "A block" : `${count(f.blocks ?? 0)} blocks`} of link ${f.link} quarantined: ${f.reason === "mismatch" ? "the two ends differ" : f.reason}`,
  "block.expired": () => "Unused bits were destroyed at the end of their life",
  "key.refused": (f) => `A key was refused to ${f.sae}`,
  "key.burnt": (f) => `${bits(f.bits ?? 0)} of link ${f.link} burnt`,
  "key.expired": () => "A key nobody fetched was destroyed",
  "key.revoked": () => "A key was revoked",
  "key.suspended": (f) => `${keys(f)} suspended`,
  "key.resumed": (f) => `${keys(f)} in use again`,
  "key.deactivated": (f) => `${keys(f)} deactivated`,
  "key.compromised": (f) => `${keys(f)} marked as compromised`,
  "key.destroyed": (f) => `${keys(f)} destroyed`,
  "key.rotation_due": (f) => `Key ${short(f.key_id)} is due for rotation`,
  "key.unknown_id": (f) => `${f.sae ?? "An SAE"} asked for a key it has no copy of`,
  "quota.denied": (f) => `${f.sae} is above its quota`,
  "draw.abnormal": (f) => `${f.sae ?? "An SAE"} asks for many key IDs that it has no copy of`,
  "pool.low": (f) => `The pool of ${f.link ?? "a link"} is low`,
  "strand.renewed": (f) => `Fresh ML-KEM strand with ${f.peer}`,
  "strand.missing": (f) => `No ML-KEM strand with ${f.peer}: no hybrid key can be made`,
  "peer.up": (f) => `Peer ${f.peer} is up`,
  "peer.down": (f) => `Peer ${f.peer} is down`,
  "peer.fault": (f) => `Peer ${f.peer} broke the protocol`,
  "peer.rollback": (f) => `Peer ${f.peer} went back to an older state`,
  "job.failed": (f) => `The job ${f.job} failed and will be tried again`,
  "audit.sink_failed": (f) => `Copies of the audit log do not reach ${f.sink ?? "their sink"}: ${f.reason ?? ""}`,
  "audit.sink_back": (f) => `Copies of the audit log reach ${f.sink ?? "their sink"} again`,
  "replica.lost": (f) => `A process of this site is not heard of any more${f.replica ? `: ${f.replica}` : ""}`,
  "relay.up": (f) => `The relay of ${f.peer} answers`,
  "key.carried": (f) => `A key of ${f.peer} was carried on to ${f.onward}, and was in clear here (${f.bits} bit)`,
  "proxy.up": (f) => `The proxy of a TLS tunnel is up (${f.role ?? ""})`,
  "proxy.blocked": () => "The proxy of a TLS tunnel cut every connection, and takes none",
  "proxy.step": (f) => `The proxy of a TLS tunnel: ${f.step ?? "step"} of key ${f.number ?? ""}`,
  "proxy.down": () => "The proxy of a TLS tunnel is down",
  "relay.unsteady": (f) => `The relay of ${f.peer} comes and goes: no keys go over it until it is steady`,
  "relay.down": (f) => `The relay of ${f.peer} is gone`,
  "relay.block": (f) => `${bits(f.bits ?? 0)} for link ${f.link} came over relays`,
  "relay.block_lost": (f) => `A block for link ${f.link} was lost on its way over relays`,
  "path.changed": (f) => `Link ${f.link} to ${f.peer}: ${f.now}; concerns ${f.services || "nobody"}`,
  "path.unsteady": (f) => `The way of link ${f.link} to ${f.peer} changes again and again; concerns ${f.services || "nobody"}`,
  "path.lost": (f) => `Nothing feeds ${f.peer} any more (${f.link}: ${f.now}); concerns ${f.services || "nobody"}`,
  "relay.no_route": (f) => `Link ${f.link} has no route over relays that has keys`,
  "maintenance.planned": (f) => `Maintenance of ${f.hop ? `the hop to ${f.hop}` : "this site"} is planned`,
  "maintenance.draining": (f) => `${f.hop ? `The hop to ${f.hop}` : "This site"} is drained for maintenance`,
  "maintenance.drained": (f) => `${f.hop ? `The hop to ${f.hop}` : "This site"} is drained: nothing is under way`,
  "maintenance.short": (f) => `Maintenance began though ${f.links} lacks ${bits(f.bits ?? 0)}`,
  "maintenance.ended": (f) => `Maintenance of ${f.hop ? `the hop to ${f.hop}` : "this site"} is over`,
  "relay.barred": (f) => `No block goes over ${f.relay} any more: ${f.reason}`,
  "relay.admitted": (f) => `${f.relay} may relay again`,
  "relay.documents_due": (f) => `Documents of ${f.site} lapse within ${f.days} days`,
  "relay.documents_lapsed": (f) => `${f.site} is documented no more: ${f.missing}`,
  "relay.tampered": (f) => `A share from ${f.neighbour} for link ${f.link} was tampered with`,
  "source.back": (f) => `Keys come from the device of link ${f.link} again`,
  "source.failed": (f) => `No keys come from the device of link ${f.link}: ${f.reason ?? ""}`,
  "source.block": (f) => `${bits(f.bits ?? 0)} for link ${f.link} came from its device`,
  "source.lost": (f) => `${bits(f.bits ?? 0)} from the device of link ${f.link} are burnt: ${f.reason ?? ""}`,
  "source.refused": (f) => `${f.name} for link ${f.link} is not used: ${f.reason ?? ""}`,
  "tunnel.restored": (f) => `Tunnel ${f.tunnel} has its protection back`,
  "tunnel.up": (f) => `Tunnel ${f.tunnel} is up`,
  "tunnel.down": (f) => `Tunnel ${f.tunnel} is down: ${f.reason ?? "no reason given"}`,
  "tunnel.rotated": (f) => `Tunnel ${f.tunnel} uses its next key`,
  "tunnel.missed": (f) => `Tunnel ${f.tunnel} keeps its key, the next one did not come into use: ${f.reason ?? ""}`,
  "tunnel.blocked": (f) => `Tunnel ${f.tunnel} lets nothing pass: ${f.reason ?? "its key is too old"}`,
  "tunnel.unblocked": (f) => `Tunnel ${f.tunnel} should be stopped and is not: ${f.reason ?? ""}`,
  "tunnel.fallback": (f) => `Tunnel ${f.tunnel} runs below its protection for a limited time`,
  "tunnel.fault": (f) => `Tunnel ${f.tunnel} could not be tidied up: ${f.reason ?? ""}`,
  "policy.loaded": (f) => `Policy ${f.serial ?? ""} is in force`,
  "policy.refused": () => "A policy was refused: the one before stays in force",
  "policy.emergency": (f) => `${f.actor ?? "Somebody"} changed the policy in an emergency`,
  "audit.checkpoint": (f) => `Audit checkpoint signed over ${count(f.size ?? 0)} records`,
  "audit.cosigned": (f) => `${f.peer} co-signed the audit log at ${count(f.size ?? 0)} records`,
  "audit.failed": () => "The audit log cannot be written: no key leaves",
  "transfer.started": (f) => `Transfer ${short(f.transfer_id)} started`,
  "transfer.rotated": (f) => `Transfer ${short(f.transfer_id)} took key ${short(f.key_id)}`,
  "transfer.resumed": (f) => `Transfer ${short(f.transfer_id)} resumed`,
  "transfer.finished": (f) => `Transfer ${short(f.transfer_id)} finished`,
  "transfer.failed": (f) => `Transfer ${short(f.transfer_id)} failed`,
  "tls.refused": () => "A TLS handshake was refused",
  "tls.reloaded": () => "New certificates or keys are in use",
  "tls.reload_failed": () => "New certificates or keys cannot be read: those before stay in use",
  "request.refused": () => "A request was refused",
  "downgrade.waived": () => "A waiver let a key leave below the required protection",
  "downgrade.fallback": (f) => `The policy let keys from ${f.initiator} to ${f.responder} fall back to less protection`,
  "downgrade.refused": () => "A key below the required protection was refused",
  "site.started": () => "The site started",
  "site.stopping": () => "The site is stopping",
  "store.failed": () => "The store failed: no key leaves",
};
const DETAIL = ["reason", "detail", "group", "status", "algorithm"];

export function saying(event) {
  const fields = event.fields ?? {};
  const said = SAYINGS[event.kind];
  if (!said) return [event.kind, ...Object.entries(fields).map(([name, value]) => `${name} ${value}`)].join(", ");
  const extra = DETAIL.filter((name) => fields[name]).map((name) => fields[name]);
  return extra.length ? `${said(fields)} (${extra.join(", ")})` : said(fields);
}
