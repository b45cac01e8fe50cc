// A real OpenID provider for the tests: client credentials, access tokens as JWT, bound to the client's certificate.
// usage: node provider.mjs SETTINGS.json; prints "ready" once it listens.
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { Provider } from 'oidc-provider';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const { issuer, audience, alg } = settings;

const provider = new Provider(issuer, {
  jwks: settings.jwks,
  clients: settings.clients.map(({ id, secret, bound }) => ({
    client_id: id,
    client_secret: secret,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    token_endpoint_auth_method: 'client_secret_post',
    id_token_signed_response_alg: alg,
    tls_client_certificate_bound_access_tokens: bound,
  })),
  ttl: { ClientCredentials: settings.ttl_s },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      getCertificate: (ctx) => {
        const peer = ctx.socket.getPeerX509Certificate?.();
        return peer ? peer.toString() : undefined;
      },
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'admin',
        audience,
        accessTokenTTL: settings.ttl_s,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg } },
      }),
    },
  },
  extraTokenClaims: (ctx, token) => ({ groups: settings.groups[token.clientId] ?? [] }),
});

const options = {
  cert: readFileSync(settings.certificate),
  key: readFileSync(settings.private_key),
  ca: readFileSync(settings.ca),
  requestCert: true,
  rejectUnauthorized: false,
};
https.createServer(options, provider.callback()).listen(settings.port, '127.0.0.1', () => console.log('ready'));
