// What is beside an app's types in its folder.
export * from "../..";
