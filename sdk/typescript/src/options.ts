/** How to trust a server, and be trusted. PEM texts; what is left out is the system's. */
export interface TlsOptions {
  /** The authorities that sign servers' certificates. */
  readonly ca?: string | Uint8Array | undefined;
  /** This side's certificate, where servers want one. */
  readonly cert?: string | Uint8Array | undefined;
  /** Its private key. */
  readonly key?: string | Uint8Array | undefined;
}

/** How to reach a server. */
export interface ConnectOptions {
  /** Only for `https://` addresses; with any other it is a mistake. */
  readonly tls?: TlsOptions | undefined;
  /** What is sent with each call, for a proxy in front of the server, say. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/** How to make one call. */
export interface CallOptions {
  /** Ends it, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** The W3C trace context that it belongs to. */
  readonly traceparent?: string | undefined;
}
