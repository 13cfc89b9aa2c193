// Errors as Forebay tells them: the trailer with google.rpc's details.
import { create, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import type { Any } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "../dist/gen/google/rpc/status_pb.js";

export interface Told {
  readonly reason?: string;
  readonly state?: string;
  readonly retryAfterMs?: number;
  readonly violations?: readonly { readonly field: string; readonly description: string }[];
}

/** The status that a server ends a call with. */
export function refusal(code: grpc.status, details: string, told: Told = {}): grpc.ServiceError {
  const metadata = new grpc.Metadata();
  const packed: Any[] = [];
  const add = <Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): void => {
    packed.push(anyPack(schema, message));
  };
  if (told.reason !== undefined) {
    const state = told.state === undefined ? {} : { state: told.state };
    add(ErrorInfoSchema, create(ErrorInfoSchema, { reason: told.reason, domain: "forebay", metadata: state }));
  }
  if (told.violations !== undefined) {
    add(BadRequestSchema, create(BadRequestSchema, { fieldViolations: [...told.violations] }));
  }
  if (told.retryAfterMs !== undefined) {
    const retryDelay = { seconds: 0n, nanos: told.retryAfterMs * 1_000_000 };
    add(RetryInfoSchema, create(RetryInfoSchema, { retryDelay }));
  }
  if (packed.length > 0) {
    const status = create(StatusSchema, { code, message: details, details: packed });
    metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)));
  }
  return Object.assign(new Error(details), { code, details, metadata });
}
