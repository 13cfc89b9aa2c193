import type { DescMessage, DescMethodUnary, MessageShape } from "@bufbuild/protobuf";

import type { ApiError } from "./errors.js";
import type { CallOptions } from "./options.js";

/** Makes a call until it succeeds, or fails in a way that another attempt does not help or might do harm. */
export type Again = <I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  request: MessageShape<I>,
  options: CallOptions,
  isHarmless: (error: unknown) => error is ApiError,
) => Promise<MessageShape<O>>;
